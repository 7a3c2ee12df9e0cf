import CLibFuzzer
import FuzzTargets

/// FUSE requests, good and bad, through a server into files that do nothing.
///
/// Why it has a `main` of its own: see fuzz-vhost-user.
@main struct FuzzFuseRequest {
    static func main() {
        var count = CommandLine.argc
        var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = unsafe CommandLine.unsafeArgv
        // The bytes are the fuzzer's and live as long as the call.
        _ = unsafe LLVMFuzzerRunDriver(&count, &arguments) { start, count in
            fuzzFuseRequest(unsafe UnsafeBufferPointer(start: start, count: count).span)
            return 0
        }
    }
}
