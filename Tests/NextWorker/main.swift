internal import Custody
internal import Glibc
internal import Platform
internal import WorkerProgram
internal import WorkerRuntime

// The worker as its next version might be: it keeps one more field in the session record, which says since when a
// worker has had the device. It follows the version before, and that one follows it. Started from a file whose name
// contains `incompatible` it is the version after that one, which reads its own records only.

/// `struct { uint64_t owner_since; }` at the start of the record's additions: nanoseconds of CLOCK_MONOTONIC.
private enum OwnerSince {
    static func load(from record: SessionRecord) -> UInt64 {
        unsafe record.additions.load(as: UInt64.self)
    }

    static func store(_ instant: UInt64, in record: SessionRecord) {
        unsafe record.additions.storeBytes(of: instant, as: UInt64.self)
    }
}

private func takeUp(_ record: SessionRecord, writtenBefore: UInt32) -> String {
    let now = monotonicNanoseconds()
    let since = OwnerSince.load(from: record)
    OwnerSince.store(now, in: record)
    // A worker that does not know the field leaves what the one before it has written.
    guard writtenBefore >= 2 else { return "nobody says since when the worker before had it" }
    return "the worker before had it for \((now &- since) / 1_000_000) ms"
}

private func ownFile() -> String {
    unsafe withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
        let count = unsafe readlink("/proc/self/exe", buffer.baseAddress!, buffer.count)
        return unsafe String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
    }
}

if ownFile().contains("incompatible") {
    runWorker(WorkerBuild(version: "0.3.0", record: RecordFormat(reads: 3...3, writes: 3)))
} else {
    runWorker(
        WorkerBuild(
            version: "0.2.0",
            record: RecordFormat(reads: 1...2, writes: 2) { takeUp($0, writtenBefore: $1) }))
}
