internal import CWire

/// What a build of the worker knows of session records.
///
/// A record has two version numbers. `SessionRecord.version` is the lowest that whoever uses it must know; it is given
/// when the record is made, and stays. `SessionRecord.writtenVersion` is that of the worker that has it: a later
/// version may add fields (`SessionRecord.additions`), which workers of earlier ones leave alone. So a worker of either
/// build can follow one of the other, whichever is killed when, and an upgrade can be taken back.
public struct RecordFormat: Sendable {
    /// Versions that this build can use.
    public var reads: ClosedRange<UInt32>
    /// The version whose fields it keeps up to date.
    public var writes: UInt32
    /// Called by a worker that has just claimed the device: puts those fields in order that this version has added.
    ///
    /// The version is that of the worker before, 0 for none: what versions after it have added, it has not kept up. The
    /// answer is for the log. A death in here leaves that version as it was: the successor is called in turn.
    public var claimed: @Sendable (SessionRecord, _ writtenBefore: UInt32) -> String?

    public init(
        reads: ClosedRange<UInt32>, writes: UInt32,
        claimed: @escaping @Sendable (SessionRecord, _ writtenBefore: UInt32) -> String? = { _, _ in nil }
    ) {
        self.reads = reads
        self.writes = writes
        self.claimed = claimed
    }

    /// Of this tree.
    public static let current = RecordFormat(
        reads: 1...UInt32(WIRE_RECORD_VERSION), writes: UInt32(WIRE_RECORD_VERSION))
}
