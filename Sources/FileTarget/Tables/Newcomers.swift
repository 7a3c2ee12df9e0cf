/// Files that were opened in this turn of a loop: custody takes them together, in one call, before the driver is shown
/// any answer of the turn.
///
/// Until then nothing knows of them but this: neither the tables, so that what a worker leaves that dies is as if they
/// had never been opened, nor any request, for their handles are told to nobody.
struct Newcomers {
    static let capacity = 16

    private var files = InlineArray<16, KeptFile>(repeating: KeptFile(-1, slot: 0))
    private var kinds = InlineArray<16, FileKind>(repeating: .file)
    private var count = 0

    var isFull: Bool { count == Self.capacity }

    mutating func add(_ file: KeptFile, _ kind: FileKind) {
        files[count] = file
        kinds[count] = kind
        count += 1
    }

    /// Has custody keep them, then puts them into the table.
    mutating func settle(_ custody: OpenFileCustody, _ table: FileTable) {
        guard count > 0 else { return }
        custody.keep(files.span.extracting(first: count))
        for index in 0..<count { table.open(files[index].slot, kinds[index], files[index].file) }
        count = 0
    }
}
