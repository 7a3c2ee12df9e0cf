internal import ArgumentParser
internal import Configuration
internal import ControlAPI
internal import Glibc
internal import Platform

struct Resize: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Give a disk another size while it is served. Its guest sees it at once.")

    @Argument(help: "The device.")
    var name: String

    @Argument(
        help: "Such as 20G: what its image is made to have. Without it: what the image or block device has by now.")
    var size: String?

    @Flag(help: "It may be less than it was: the guest has made its file system smaller before.")
    var shrink = false

    @OptionGroup var connection: ConnectionOptions

    func validate() throws {
        if let size, ByteCount(size) == nil { throw ValidationError("a size is a number such as 20G, not '\(size)'") }
    }

    func run() throws {
        try connection.run { client in
            let bytes = size.flatMap { ByteCount($0) }.map { UInt64($0.bytes) }
            let parameters = ResizeParameters(name: name, bytes: bytes, shrink: shrink)
            let result = try client.call(.resize, parameters, as: ResizeResult.self)
            if connection.json { return try printJSON(result) }
            let text =
                result.isWaiting ? "will have \(result.bytes) bytes when a worker has it" : "has \(result.bytes) bytes"
            printText("\(name): \(text)\n", to: STDOUT_FILENO)
        }
    }
}
