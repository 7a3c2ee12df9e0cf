import TestSupport
import Testing

/// docs/crash-points.md names, for each state that a death can leave behind, the test that dies there.
@Suite struct CrashPointTableTests {
    /// The package's folder.
    private static let package = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }

    private func text(_ path: String) throws -> String {
        String(decoding: try TestFile.read(Self.package + "/" + path, count: 1 << 20), as: UTF8.self)
    }

    /// The last cell of each row of each table that has a column "Test", with its line number.
    private func tests() throws -> [(line: Int, cell: String)] {
        var cells: [(Int, String)] = []
        var isInTable = false
        for (index, line) in try text("docs/crash-points.md").split(separator: "\n", omittingEmptySubsequences: false)
            .enumerated()
        {
            let row = line.split(separator: "|").map { $0.drop { $0 == " " } }
            guard line.hasPrefix("|"), let last = row.last else {
                isInTable = false
                continue
            }
            if last.hasPrefix("Test") { isInTable = true } else if isInTable { cells.append((index + 1, String(last))) }
        }
        return cells.filter { !$0.1.hasPrefix("-") }
    }

    private func sourcesBelow(_ folder: String) throws -> String {
        try TestFile.names(in: Self.package + "/" + folder).map { name in
            let path = "\(folder)/\(name)"
            if name.hasSuffix(".swift") { return try text(path) }
            return name.contains(".") ? "" : try sourcesBelow(path)
        }.joined()
    }

    @Test func `each row names tests that exist`() throws {
        var sources = ""
        for folder in TestFile.names(in: Self.package + "/Tests") where folder.hasSuffix("Tests") {
            sources += try sourcesBelow("Tests/\(folder)")
        }
        let rows = try tests()
        #expect(rows.count > 10, "the tables were not found")
        for (line, cell) in rows {
            // A test by its name, in backquotes; or all tests of a suite.
            let quoted = cell.split(separator: "`", omittingEmptySubsequences: false).enumerated()
                .filter { $0.offset % 2 == 1 }.map(\.element)
            let suites = cell.split { !$0.isLetter }.filter { $0.hasSuffix("Tests") }
            #expect(!quoted.isEmpty || !suites.isEmpty, "line \(line) names no test: \(cell)")
            for name in quoted {
                #expect(sources.contains("func `\(name)`"), "line \(line): there is no test `\(name)`")
            }
            for suite in suites {
                #expect(sources.contains("struct \(suite)"), "line \(line): there is no suite \(suite)")
            }
        }
    }
}
