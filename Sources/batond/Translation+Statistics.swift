internal import ControlAPI
internal import Platform
internal import SupervisorRuntime
internal import Telemetry

extension StatisticsInfo {
    /// What a device's statistics say now.
    init(of status: DeviceStatus) {
        let reading = status.statistics.read(at: monotonicNanoseconds())
        func operations(_ kind: RequestKind) -> OperationInfo {
            OperationInfo(reading.counts[kind], reading.latencies[kind])
        }
        let isShare = status.configuration.share != nil
        // The kinds from the fourth on are counted under other names by a share.
        func ofDisk(_ kind: RequestKind) -> OperationInfo {
            isShare ? OperationInfo(operations: 0, bytes: 0, errors: 0) : operations(kind)
        }
        var writeZeroes = ofDisk(.writeZeroes)
        writeZeroes.add(ofDisk(.writeZeroesUnmapping))
        let worker = status.workers.first { $0.phase == .active || $0.phase == .freezing }
        self.init(
            time: reading.time, reads: operations(.read), writes: operations(.write), flushes: operations(.flush),
            discards: ofDisk(.discard), writeZeroes: writeZeroes, identifies: ofDisk(.identify),
            refused: ofDisk(.refused), malformed: reading.counts.malformed, interrupts: reading.counts.interrupts,
            staleCompletions: reading.counts.staleCompletions, storage: StorageInfo(reading.faults),
            inFlight: reading.inFlight, oldest: reading.oldest, lastGap: reading.lastGap.map { GapInfo($0) },
            deaths: reading.gaps[.death] ?? 0, handOvers: reading.gaps[.handOver] ?? 0,
            workerCPU: worker.flatMap { processCPUNanoseconds($0.process) })
        (throttled, held) = (reading.throttled, reading.held)
        guard isShare else { return }
        files = FileOperationsInfo(
            lookups: operations(.lookup), changes: operations(.change), opens: operations(.open),
            attributes: operations(.attribute), others: operations(.other),
            nodes: reading.nodes, openFiles: reading.openFiles)
    }
}

extension OperationInfo {
    fileprivate init(_ counts: KindCounts, _ latencies: LatencyBuckets?) {
        self.init(
            operations: counts.operations, bytes: counts.bytes, errors: counts.errors,
            latency: latencies.map { LatencyInfo(sum: counts.nanoseconds, buckets: $0.infos) })
    }

    fileprivate mutating func add(_ other: OperationInfo) {
        operations &+= other.operations
        bytes &+= other.bytes
        errors &+= other.errors
    }
}

extension LatencyBuckets {
    fileprivate var infos: [BucketInfo] {
        counts.indices.filter { counts[$0] > 0 }.map { bucket in
            let range = Self.range(of: bucket)
            let below = range.upperBound == .max ? nil : range.upperBound
            return BucketInfo(from: range.lowerBound, below: below, count: counts[bucket])
        }
    }
}

extension StorageInfo {
    fileprivate init(_ faults: [StorageFault: UInt64]) {
        self.init(
            noSpace: faults[.noSpace] ?? 0, retries: faults[.retry] ?? 0, shortTransfers: faults[.shortTransfer] ?? 0,
            unexpectedEnds: faults[.unexpectedEnd] ?? 0, errors: faults[.error] ?? 0, bounced: faults[.bounce] ?? 0)
    }
}

extension GapInfo {
    fileprivate init(_ gap: StatisticsReading.Gap) {
        self.init(nanoseconds: gap.nanoseconds, cause: gap.cause == .death ? "death" : "hand-over")
    }
}
