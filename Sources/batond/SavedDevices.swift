internal import ControlAPI
internal import Foundation
internal import Logging

/// What devices there are, one file each: what a supervisor that starts with nothing else goes by.
struct SavedDevices: Sendable {
    private let directory: URL

    /// - Throws: when the directory cannot be made.
    init(in stateDirectory: String) throws {
        directory = URL(fileURLWithPath: stateDirectory).appendingPathComponent("devices")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    }

    private func file(_ name: String) -> URL { directory.appendingPathComponent("\(name).json") }

    func save(_ disk: DeviceParameters) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(disk).write(to: file(disk.name), options: .atomic)
    }

    func remove(_ name: String) {
        try? FileManager.default.removeItem(at: file(name))
    }

    /// All of them; one that cannot be read is logged and left alone.
    func load(_ log: Logger) -> [DeviceParameters] {
        let files = (try? FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)) ?? []
        return files.filter { $0.pathExtension == "json" }.sorted { $0.path < $1.path }.compactMap { file in
            do {
                return try JSONDecoder().decode(DeviceParameters.self, from: try Data(contentsOf: file))
            } catch {
                log.error("cannot read \(file.path): \(error)")
                return nil
            }
        }
    }
}
