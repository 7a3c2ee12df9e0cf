internal import CLinux
internal import Glibc
internal import Platform

/// What the host does with a block device: why an exclusive open of it is refused.
struct BlockDeviceUse {
    /// "major:minor" of the device, of its partitions, and of the disk that it is a partition of: a claim on one of
    /// them keeps the others from being claimed.
    private let numbers: [String]
    /// Their folders in sysfs.
    private let folders: [String]

    /// The most that is read of a list of mounts or swap areas, in bytes.
    private static let listLimit = 4 << 20

    init(device: dev_t) {
        let own = "/sys/dev/block/\(gnu_dev_major(device)):\(gnu_dev_minor(device))"
        var folders = [own]
        if readSmallFile("\(own)/partition") != nil { folders.append("\(own)/..") }
        for name in directoryNames(own) where readSmallFile("\(own)/\(name)/partition") != nil {
            folders.append("\(own)/\(name)")
        }
        self.folders = folders
        numbers = folders.compactMap { readSmallFile("\($0)/dev") }
    }

    /// A sentence that says what the host does with the device and how to end it; nil when it does nothing.
    var advice: String? {
        if let place = mountPoint { return "This host has it mounted at \(place): unmount it first" }
        for folder in folders {
            if let holder = directoryNames("\(folder)/holders").first {
                return "The device \(holder) of this host is made of it: take that apart first"
            }
        }
        if isSwap { return "This host swaps to it: swapoff first" }
        return nil
    }

    /// Where a file system on it is mounted in this process's view.
    private var mountPoint: Substring? {
        for line in lines(of: "/proc/self/mountinfo") {
            let fields = line.split(separator: " ")
            if fields.count > 4, numbers.contains(String(fields[2])) { return fields[4] }
        }
        return nil
    }

    private var isSwap: Bool {
        lines(of: "/proc/swaps").dropFirst().contains { line in
            var status = stat()
            guard let path = line.split(separator: " ").first, unsafe stat(String(path), &status) == 0,
                status.st_mode & S_IFMT == S_IFBLK
            else { return false }
            return numbers.contains("\(gnu_dev_major(status.st_rdev)):\(gnu_dev_minor(status.st_rdev))")
        }
    }

    private func lines(of path: String) -> [Substring] {
        (readFile(path, limit: Self.listLimit) ?? "").split(separator: "\n")
    }
}
