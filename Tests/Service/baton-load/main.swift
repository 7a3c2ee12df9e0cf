internal import FrontendKit
internal import Glibc
internal import Platform
internal import TestSupport

// A verified load on disks, for scripts: each argument is SOCKET or SOCKET=QUEUES. What it is told on standard input, a
// line each, it answers on standard output:
//
//   pass N    when every load has had N more requests completed: "ok"
//   pause     the longest time without a completion on any disk since this was asked, in milliseconds
//   idle      how many requests the back-ends have taken and not given back, by the front-ends' logs
//   end       "clean", with counts; or what was wrong, with exit status 1
//   quit      ends at once
func say(_ text: String) { printText(text + "\n", to: STDOUT_FILENO) }

do {
    let seed = makeSeed()
    var loads: [Load] = []
    for argument in CommandLine.arguments.dropFirst() {
        let parts = argument.split(separator: "=")
        loads.append(try Load(String(parts[0]), queues: parts.count > 1 ? Int(parts[1]) ?? 1 : 1, seed: seed))
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
            let reports = try loads.map { try $0.end().get() }
            let (requests, errors) = (
                reports.reduce(0) { $0 + $1.requests }, reports.reduce(0) { $0 + $1.errors + $1.mismatches }
            )
            guard reports.allSatisfy(\.isClean) else {
                say("seed \(seed): \(errors) errors in \(requests) requests: \(reports)")
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
