import CLibFuzzer
import FuzzTargets

/// Block requests, good and bad, through a queue into a backend.
///
/// Why it has a `main` of its own: see fuzz-vhost-user.
@main struct FuzzBlockRequest {
    static func main() {
        var count = CommandLine.argc
        var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = unsafe CommandLine.unsafeArgv
        // The bytes are the fuzzer's and live as long as the call.
        _ = unsafe LLVMFuzzerRunDriver(&count, &arguments) { start, count in
            fuzzBlockRequest(unsafe UnsafeBufferPointer(start: start, count: count).span)
            return 0
        }
    }
}
