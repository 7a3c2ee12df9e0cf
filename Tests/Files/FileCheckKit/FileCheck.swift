internal import Platform

/// The same operations, one at a time, on two file systems that must not differ.
public struct FileCheck: Sendable {
    public var seed: UInt64
    public var operations: Int
    public var options: OperationGenerator.Options
    /// How often the trees are compared, in operations. 1 finds the very operation that made them differ.
    public var interval = 5000

    public init(seed: UInt64, operations: Int, options: OperationGenerator.Options = .init()) {
        self.seed = seed
        self.operations = operations
        self.options = options
    }

    /// The first place where the two file systems are not the same.
    public struct Difference: Sendable, CustomStringConvertible {
        public var seed: UInt64
        /// How many operations it takes: the shortest prefix of the plan that shows it.
        public var count: Int
        /// What was done last, and what each said; the operations before it that touched the same things.
        public var sentence: String
        public var before: [String]

        public var description: String {
            "seed \(seed), after \(count) operations: \(sentence)\n"
                + before.map { "    before: \($0)" }.joined(separator: "\n")
        }
    }

    /// What a check has done.
    public struct Report: Sendable {
        public var operations = 0
        /// Not carried out: the slot was empty, or it would have said nothing.
        public var passed = 0
        /// Ended with an error number, the same on both sides.
        public var refused = 0
        public var difference: Difference?
    }

    /// Carries the plan out on both.
    ///
    /// - Parameters:
    ///   - trees: the directories of the host that they are, to be compared at the end and now and then.
    ///   - before: called before every operation, with its number.
    /// - Throws: what keeps it from going on.
    public func run(
        _ tested: inout (some FileExecutor & ~Copyable), _ model: inout (some FileExecutor & ~Copyable),
        trees: (tested: String, model: String), before: (Int) throws -> Void = { _ in }
    ) throws -> Report {
        var generator = OperationGenerator(seed: seed, options)
        var report = Report()
        var past: [String] = []
        while report.operations < operations {
            let (actor, operation) = generator.next()
            try before(report.operations)
            let expected = try model.perform(operation, by: actor)
            let found: FileOutcome
            do {
                found = try tested.perform(operation, by: actor)
            } catch {
                throw SystemError(
                    cannot: "go on with \(operation) of \(actor)", "", nil,
                    advice: "\(error). Seed \(seed), operation \(report.operations)")
            }
            report.operations += 1
            switch found {
            case .passed: report.passed += 1
            case .failed: report.refused += 1
            default: break
            }
            if found != expected, !model.leavesOpen(operation, by: actor, found, expected) {
                report.difference = Difference(
                    seed: seed, count: report.operations,
                    sentence: "\(operation) by \(actor)\n    should be: \(expected)\n    was:       \(found)",
                    before: past)
                return report
            }
            past.append("\(operation) by \(actor): \(found)")
            if past.count > 12 { past.removeFirst() }
            if report.operations % interval == 0 || report.operations == operations {
                report.difference = try compare(trees, report.operations, past)
                if report.difference != nil { return report }
            }
        }
        return report
    }

    private func compare(
        _ trees: (tested: String, model: String), _ count: Int, _ past: [String]
    ) throws -> Difference? {
        let (found, expected) = (try TreeReader.lines(trees.tested), try TreeReader.lines(trees.model))
        guard found != expected else { return nil }
        let lines =
            found.filter { !expected.contains($0) }.map { "has  \($0)" }
            + expected.filter { !found.contains($0) }.map { "lacks \($0)" }
        return Difference(
            seed: seed, count: count,
            sentence: "the trees differ:\n    " + lines.prefix(20).joined(separator: "\n    "),
            before: past)
    }
}
