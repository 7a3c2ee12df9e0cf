internal import ControlAPI

extension ConfigurationContent {
    /// What two devices cannot have in common, or not for the same guest.
    static func clashes(of devices: [ConfiguredDevice]) -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        var (sockets, images, tags):
            ([String: ConfiguredDevice], [String: ConfiguredDevice], [String: ConfiguredDevice])
        (sockets, images, tags) = ([:], [:], [:])
        for device in devices {
            let (now, path) = (device.parameters, device.parameters.section)
            if let socket = now.socket {
                if let other = sockets[socket] {
                    problems.append(clash(device, other, "\(path).socket", "socket \(socket)"))
                }
                sockets[socket] = sockets[socket] ?? device
            }
            if let image = now.file {
                if let other = images[image], !(now.readOnly && other.parameters.readOnly) {
                    problems.append(clash(device, other, "\(path).file", "image \(image), and one of them writes"))
                }
                images[image] = images[image] ?? device
            }
            // Two guests may each have one of this tag: which guest a share is for is not known here.
            if let tag = now.share?.tag {
                if let other = tags[tag] {
                    var problem = clash(
                        device, other, "\(path).tag", "tag \(tag): one guest can mount only one of them")
                    problem.severity = .warning
                    problem.suggestion = "give each its own, unless they are for different guests"
                    problems.append(problem)
                }
                tags[tag] = tags[tag] ?? device
            }
        }
        return problems
    }

    private static func clash(
        _ device: ConfiguredDevice, _ other: ConfiguredDevice, _ key: String, _ what: String
    ) -> ConfigurationProblem {
        let place = other.file == device.file ? "" : " in \(other.file)"
        return ConfigurationProblem(
            in: device.file, key: key, "\(other.parameters.section)\(place) has the same \(what)",
            suggestion: "give each its own")
    }
}
