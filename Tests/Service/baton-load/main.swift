internal import FrontendKit
internal import Glibc
internal import Platform
internal import TestSupport

// A verified load on disks and shares, for scripts: each argument is SOCKET or SOCKET=QUEUES, with `share:` before it
// for a share. What it is told on standard input, a line each, it answers on standard output:
//
//   pass N    when every load has had N more requests completed: "ok"
//   pause     the longest time without a completion on any disk since this was asked, in milliseconds
//   idle      how many requests the back-ends of disks have taken and not given back, by the front-ends' logs
//   end       "clean", with counts; or what was wrong, with exit status 1
//   quit      ends at once
func say(_ text: String) { printText(text + "\n", to: STDOUT_FILENO) }

do {
    let seed = makeSeed()
    var loads: [any Load] = []
    for argument in CommandLine.arguments.dropFirst() {
        let parts = argument.split(separator: "=")
        let queues = parts.count > 1 ? Int(parts[1]) ?? 1 : 1
        if parts[0].hasPrefix("share:") {
            loads.append(try ShareLoad(String(parts[0].dropFirst("share:".count)), queues: queues, seed: seed))
        } else {
            loads.append(try DiskLoad(String(parts[0]), queues: queues, seed: seed))
        }
    }
    commands: while let line = readLine() {
        let words = line.split(separator: " ")
        switch words.first {
        case "pass":
            let goals = loads.map { $0.completed + (words.count > 1 ? Int(words[1]) ?? 0 : 0) }
            while zip(loads, goals).contains(where: { $0.completed < $1 && !$0.hasEnded }) { pause(milliseconds: 1) }
            say(loads.contains { $0.hasEnded } ? "ended" : "ok")
        case "pause": say("\((loads.map { $0.takeLongestPause() }.max() ?? 0) / 1_000_000)")
        case "idle": say("\(loads.reduce(0) { $0 + $1.inFlight })")
        case "end":
            let outcomes = try loads.map { try $0.end() }
            let (requests, errors) = (
                outcomes.reduce(0) { $0 + $1.requests }, outcomes.reduce(0) { $0 + $1.errors }
            )
            guard outcomes.allSatisfy(\.isClean) else {
                // The answer is one line.
                let texts = outcomes.filter { !$0.isClean }.map { $0.text.replacing("\n", with: "; ") }
                say("seed \(seed): \(errors) errors in \(requests) requests: \(texts)")
                exit(1)
            }
            say("clean: \(requests) requests, \(errors) errors, seed \(seed)")
            exit(0)
        case "quit": break commands
        default: say("there is no '\(line)'")
        }
    }
    exit(0)
} catch {
    say("\(error)")
    exit(1)
}
