/// What somebody may have meant.
enum Spelling {
    /// The candidate that is nearest to a misspelt word; nil when none is near.
    static func nearest(to word: String, among candidates: [String]) -> String? {
        let limit = max(1, min(3, word.utf8.count / 3))
        // What was meant is often written with another joint, or as in JSON.
        let folded = fold(word)
        return
            candidates
            .map { ($0, fold($0) == folded ? 0 : distance(word, $0)) }
            .filter { $0.1 <= limit }
            .min { $0.1 < $1.1 }?.0
    }

    private static func fold(_ word: String) -> String { word.lowercased().filter { $0 != "-" && $0 != "_" } }

    /// Insertions, deletions, substitutions and exchanges of neighbours that make one word of the other. Words of more
    /// than 64 bytes are as far apart as they can be.
    static func distance(_ first: String, _ second: String) -> Int {
        let (first, second) = (Array(first.utf8), Array(second.utf8))
        guard first.count <= 64, second.count <= 64 else { return .max }
        var rows = [Array(0...second.count)]
        for i in 0..<first.count {
            var row = [i + 1]
            for j in 0..<second.count {
                var best = min(row[j] + 1, rows[i][j + 1] + 1, rows[i][j] + (first[i] == second[j] ? 0 : 1))
                if i > 0, j > 0, first[i] == second[j - 1], first[i - 1] == second[j] {
                    best = min(best, rows[i - 1][j - 1] + 1)
                }
                row.append(best)
            }
            rows.append(row)
        }
        return rows[first.count][second.count]
    }
}
