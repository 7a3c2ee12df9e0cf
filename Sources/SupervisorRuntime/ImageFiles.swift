internal import Custody
internal import Platform

/// A device's image as its supervisor sees it: something to open anew for each worker, and to keep everybody else off.
enum ImageFiles {
    /// Opens what one worker uses: for direct transfers first, then, if the image is not buffered, for the others.
    ///
    /// - Throws: what failed, and what to do.
    static func open(_ configuration: DeviceConfiguration) throws(SystemError) -> [SharedFD] {
        guard let path = configuration.imagePath else { return [] }
        let (isReadOnly, isDirect) = (configuration.isReadOnly, !configuration.isBuffered)
        var files = [SharedFD(try openImage(path, readOnly: isReadOnly, direct: isDirect))]
        if isDirect { files.append(SharedFD(try openImage(path, readOnly: isReadOnly, direct: false))) }
        return files
    }

    /// Opens an image and makes sure that nobody else serves it, for as long as the file is open anywhere. No request
    /// ever uses it.
    ///
    /// Of a share, it is the directory, which anybody may use besides.
    ///
    /// - Returns: nil for a disk that has no image.
    /// - Throws: a sentence that says who is in the way.
    static func takeCustody(_ configuration: DeviceConfiguration) throws(SystemError) -> SharedFD? {
        if let share = configuration.share { return try share.open() }
        guard let path = configuration.imagePath else { return nil }
        let isReadOnly = configuration.isReadOnly
        let file = try openImage(
            path, readOnly: isReadOnly, direct: false, exclusively: !isReadOnly && isBlockDevice(path))
        guard ImageLocks.tryCustody(file, readOnly: isReadOnly) else {
            throw SystemError(
                cannot: "serve", path, nil, advice: "Another worker or supervisor serves it: end that one first")
        }
        try ImageLocks.excludeQEMU(file, path: path, readOnly: isReadOnly)
        return SharedFD(file)
    }

    /// Makes sure that nothing is written to an image any more on behalf of workers of which nothing is known. It is
    /// asked again until it is so.
    ///
    /// - Throws: a sentence when something is under way.
    static func fence(_ custody: SharedFD, path: String) throws(SystemError) {
        guard ImageLocks.isSettled(custody.fd) else {
            throw SystemError(
                cannot: "serve", path, nil,
                advice: "Requests of a worker that has died are still under way in the storage: it has to wait")
        }
    }
}
