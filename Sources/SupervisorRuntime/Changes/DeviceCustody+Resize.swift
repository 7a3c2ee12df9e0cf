internal import Custody
internal import Glibc
internal import Platform

extension DeviceCustody {
    /// Gives the disk another size, or takes over the one that its storage has got.
    ///
    /// - Parameters:
    ///   - bytes: nil: what the storage has.
    ///   - shrinks: it may be less than it was.
    /// - Throws: a sentence, when nothing was changed. Else `resizeEnded` tells how it went.
    func resize(to bytes: UInt64?, shrinks: Bool) throws(SupervisorError) {
        guard let path = configuration.imagePath else {
            throw .failed("\(configuration.name) keeps nothing: it has no size that could be changed")
        }
        guard machine.resize == nil else { throw .failed("the disk is being resized already") }
        guard let imageCustody else { throw .failed("\(path) is not in custody yet: try again when it is served") }
        let (present, isBlockDevice) = try size(of: imageCustody, path)
        let wanted = bytes ?? present / 512 * 512
        guard wanted >= 512, wanted % 512 == 0, wanted <= UInt64(Int64.max) else {
            throw .invalid("a disk's size is a multiple of 512 bytes, not \(wanted)")
        }
        if wanted != present, bytes != nil {
            if isBlockDevice {
                throw .failed(
                    "\(path) has \(present) bytes: resize it with what has made it (lvextend, losetup -c), then "
                        + "`baton resize \(configuration.name)`")
            }
            if configuration.isReadOnly {
                throw .failed("\(configuration.name) is read-only: its image is not changed")
            }
        }
        if wanted < present {
            guard shrinks else {
                throw .failed(
                    "\(path) has \(present) bytes: what lies behind \(wanted) would be lost. Make the guest's file "
                        + "system smaller first, then give --shrink")
            }
            guard machine.active != nil else {
                throw .failed("no worker has \(configuration.name): try again when one has")
            }
        } else if wanted > present {
            try cut(imageCustody, to: wanted, path)
        }
        handle(.resize(DeviceMachine.Resize(bytes: wanted, isShrinking: shrinks)))
    }

    /// Cuts the image where its disk ends, as far as it does not end there.
    func cutImage(_ bytes: UInt64) {
        guard let imageCustody, let path = configuration.imagePath else { return }
        do throws(SupervisorError) {
            let (present, isBlockDevice) = try size(of: imageCustody, path)
            if present > bytes, !isBlockDevice { try cut(imageCustody, to: bytes, path) }
        } catch {
            note(.failed, "\(error)")
        }
    }

    private func size(
        of image: SharedFD, _ path: String
    ) throws(SupervisorError) -> (bytes: UInt64, isBlockDevice: Bool) {
        var status = stat()
        do throws(Errno) {
            try retryingInterrupts { unsafe fstat(image.number, &status) }
            guard status.st_mode & S_IFMT == S_IFBLK else { return (UInt64(max(0, status.st_size)), false) }
            return (try image.fd.blockDeviceSize(), true)
        } catch {
            throw .failed("\(SystemError(cannot: "learn the size of", path, error))")
        }
    }

    private func cut(_ image: SharedFD, to bytes: UInt64, _ path: String) throws(SupervisorError) {
        do throws(Errno) {
            try retryingInterrupts { ftruncate(image.number, Int(bytes)) }
        } catch {
            throw .failed("\(SystemError(cannot: "resize", path, error))")
        }
    }
}

extension CustodyLoop {
    func resize(
        _ name: String, to bytes: UInt64?, shrinks: Bool,
        reply: @escaping @Sendable (Result<DeviceMachine.ResizeOutcome, SupervisorError>) -> Void
    ) {
        do throws(SupervisorError) {
            guard let device = devices[name] else { throw .noSuchDevice(name) }
            guard resizes[name] == nil else { throw .failed("the disk is being resized already") }
            // Before it starts: it may end at once.
            resizes[name] = reply
            try device.resize(to: bytes, shrinks: shrinks)
        } catch {
            resizes[name] = nil
            reply(.failure(error))
        }
    }

    func resizeEnded(_ outcome: DeviceMachine.ResizeOutcome, device: String) {
        guard let reply = resizes.removeValue(forKey: device) else { return }
        if case .failed(let why) = outcome { reply(.failure(.failed(why))) } else { reply(.success(outcome)) }
    }
}

extension Supervisor {
    /// Gives a disk another size: its image, and what its front-end sees.
    ///
    /// - Parameters:
    ///   - bytes: a multiple of 512; nil: what the storage has by now.
    ///   - shrinks: it may be less than it was.
    public func resize(
        _ name: String, to bytes: UInt64?, shrinks: Bool,
        reply: @escaping @Sendable (Result<DeviceMachine.ResizeOutcome, SupervisorError>) -> Void
    ) {
        mailbox.post { $0.resize(name, to: bytes, shrinks: shrinks, reply: reply) }
    }
}
