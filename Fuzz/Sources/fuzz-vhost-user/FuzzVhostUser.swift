import CLibFuzzer
import FuzzTargets

/// Sequences of vhost-user messages, through the codec into a session.
///
/// The program has a `main` of its own and runs libFuzzer as a library: SwiftPM renames the entry point of an
/// executable, so libFuzzer's would not be found.
@main struct FuzzVhostUser {
    static func main() {
        var count = CommandLine.argc
        var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = unsafe CommandLine.unsafeArgv
        // The bytes are the fuzzer's and live as long as the call.
        _ = unsafe LLVMFuzzerRunDriver(&count, &arguments) { start, count in
            fuzzVhostUser(unsafe UnsafeBufferPointer(start: start, count: count).span)
            return 0
        }
    }
}
