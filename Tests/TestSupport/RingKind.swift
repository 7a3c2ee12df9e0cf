public import FrontendKit

/// The two kinds of rings, for tests that run with both.
public enum RingKind: String, CaseIterable, Sendable {
    case split
    case packed

    /// QEMU with rings of this kind.
    public var behaviour: FrontendBehaviour { applied(to: .qemu) }

    /// A front-end that asks for rings of this kind.
    public func applied(to behaviour: FrontendBehaviour) -> FrontendBehaviour {
        self == .packed ? behaviour.withPackedRings : behaviour
    }
}
