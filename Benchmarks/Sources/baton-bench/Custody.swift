internal import Glibc
internal import Platform

/// Starts a supervisor and makes a device; ends both when it is told to.
private let custodyScript = """
    programs=$1 place=$2 control=$2/control.sock
    shift 2
    rm -rf "$place" && mkdir "$place" || exit
    "$programs/batond" --control-socket "$control" --state-directory "$place" --worker "$programs/baton-worker" &
    trap '"$programs/baton" delete bench --control-socket "$control"; kill $!; wait; rm -rf "$place"; exit' TERM
    until [ -S "$control" ]; do sleep 0.01; done
    "$programs/baton" create "$@" --control-socket "$control"
    while :; do wait; done
    """

/// Program and arguments that serve a device in custody.
///
/// - Parameters:
///   - programs: the folder of batond, baton and baton-worker.
///   - device: what `baton create` is told of a device called bench.
func commandInCustody(_ programs: String, socket: String, device: [String]) -> (program: String, arguments: [String]) {
    ("sh", ["-c", custodyScript, "sh", programs, "\(socket).custody"] + device + ["--socket=\(socket)"])
}

/// CPU time of a process and of those that it has started: virtiofsd serves in a child of its own, batond
/// in workers.
func processTreeCPUNanoseconds(_ process: Int32) -> UInt64? {
    let children = directoryNames("/proc/\(process)/task").flatMap { thread in
        (readSmallFile("/proc/\(process)/task/\(thread)/children") ?? "").split(separator: " ").compactMap { Int32($0) }
    }
    let others = children.compactMap(processTreeCPUNanoseconds).reduce(0, +)
    return processCPUNanoseconds(process).map { $0 + others }
}
