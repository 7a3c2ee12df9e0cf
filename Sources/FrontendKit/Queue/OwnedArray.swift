/// A fixed number of things that cannot be copied: queues, as a thread has several of them.
@safe struct OwnedArray<Element: ~Copyable>: ~Copyable {
    private let elements: UnsafeMutablePointer<Element>
    let count: Int

    /// Makes `count` elements in order.
    init(count: Int, _ make: (Int) -> Element) {
        unsafe elements = .allocate(capacity: count)
        self.count = count
        for index in 0..<count { unsafe (elements + index).initialize(to: make(index)) }
    }

    subscript(index: Int) -> Element {
        _read {
            precondition(index >= 0 && index < count, "no such element")
            yield unsafe elements[index]
        }
        _modify {
            precondition(index >= 0 && index < count, "no such element")
            yield unsafe &elements[index]
        }
    }

    deinit {
        unsafe elements.deinitialize(count: count)
        unsafe elements.deallocate()
    }
}

/// Things that cannot be copied, on their way into an `OwnedArray`.
struct OwnedStack<Element: ~Copyable>: ~Copyable {
    private final class Item {
        var element: Element?

        init(_ element: consuming Element) { self.element = consume element }
    }

    private var items: [Item] = []

    mutating func push(_ element: consuming Element) { items.append(Item(element)) }

    mutating func pop() -> Element {
        guard let element = items.removeLast().element.take() else { preconditionFailure("the stack is empty") }
        return element
    }
}
