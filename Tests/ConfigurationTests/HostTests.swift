import Configuration
import ControlAPI
import Glibc
import TestSupport
import Testing

/// Files as they lie on a host, and what the host lacks.
@Suite struct HostTests {
    let directory = TemporaryDirectoryBox(try! TemporaryDirectory())

    private func write(_ text: String, _ name: String) throws {
        let path = directory.value.file(name)
        try TestFile.create(path, count: 0)
        try TestFile.write(Array(text.utf8), to: path, at: 0)
    }

    private func found(_ change: (inout DeviceParameters) -> Void) -> [String] {
        var disk = DeviceParameters(name: "d", file: nil)
        change(&disk)
        return HostCheck.problems(of: ConfiguredDevice(parameters: disk, file: "a")).map(\.description)
    }

    @Test func `conf d is read after the main file, in the order of names`() throws {
        let folder = directory.value.file("conf.d")
        #expect(unsafe mkdir(folder, 0o755) == 0)
        try write("", "baton.toml")
        for name in ["b.toml", "a.toml", "c.conf", ".hidden.toml"] { try write("", "conf.d/\(name)") }
        let files = try ConfigurationFiles(directory.value.file("baton.toml")).read()
        #expect(files.map(\.path) == ["baton.toml", "conf.d/a.toml", "conf.d/b.toml"].map { directory.value.file($0) })
    }

    @Test func `a file that was named must be there`() throws {
        let path = directory.value.file("none.toml")
        #expect(throws: ConfigurationProblem.self) { try ConfigurationFiles(path).read() }
        var standard = ConfigurationFiles(path)
        standard.mayBeMissing = true
        #expect(try standard.read() == [])
        #expect(throws: ConfigurationProblem.self) { try ConfigurationFiles(directory.value.path).read() }
    }

    @Test func `a file that is too long is not read`() throws {
        try write(String(repeating: "#", count: ConfigurationFiles.maximumBytes + 1), "long.toml")
        #expect(throws: ConfigurationProblem.self) { try ConfigurationFiles(directory.value.file("long.toml")).read() }
    }

    @Test func `an image that is not there yet is waited for, a directory is none`() throws {
        let path = directory.value.file("disk.img")
        #expect(
            found { $0.file = path } == [
                "a: warning: disk.d.file: \(path) does not exist (the disk waits for it; truncate -s SIZE makes one)"
            ])
        try TestFile.create(path, count: 100)
        #expect(found { $0.file = path }.first?.contains("100 bytes, less than a sector") == true)
        try TestFile.remove(path)
        try TestFile.create(path, count: 1 << 20)
        #expect(found { $0.file = path } == [])
        #expect(found { $0.file = directory.value.path }.first?.contains("error: disk.d.file: ") == true)
        #expect(found { $0.file = "/dev/null" }.first?.contains("neither a regular file nor a block device") == true)
    }

    @Test func `a directory that is not there yet is waited for, a file is none`() throws {
        func found(_ directory: String) -> [String] {
            self.found { $0.share = ShareParameters(directory: directory, tag: "t") }
        }
        let path = directory.value.file("tree")
        #expect(
            found(path) == [
                "a: warning: share.d.directory: \(path) does not exist (the share waits for it; mkdir makes it)"
            ])
        #expect(unsafe mkdir(path, 0o755) == 0)
        #expect(found(path) == [])
        try TestFile.create("\(path)/file", count: 1)
        #expect(
            found("\(path)/file") == [
                "a: error: share.d.directory: \(path)/file is no directory "
                    + "(give the path of a directory, or write [disk.NAME])"
            ])
    }

    @Test func `a socket's folder has to be there`() {
        #expect(found { $0.socket = directory.value.file("d.sock") } == [])
        let place = directory.value.file("none")
        #expect(
            found { $0.socket = "\(place)/d.sock" } == [
                "a: error: disk.d.socket: the folder \(place) does not exist "
                    + "(make it, or let tmpfiles.d make it at every boot)"
            ])
    }

    @Test func `users and groups are known, or numbers`() {
        #expect(
            found {
                $0.socketOwner = "root"
                $0.socketGroup = "4711"
            } == [])
        #expect(
            found {
                $0.socketOwner = "nobody-at-all"
                $0.socketGroup = "none-at-all"
            } == [
                "a: error: disk.d.socket-owner: there is no user \"nobody-at-all\" (getent passwd lists them)",
                "a: error: disk.d.socket-group: there is no group \"none-at-all\" (getent group lists them)",
            ])
    }
}
