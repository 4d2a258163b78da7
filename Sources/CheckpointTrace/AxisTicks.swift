/// Marks of a time axis that begins at zero, at multiples of 1, 2 or 5 times a power of ten.
struct AxisTicks: Hashable {
    /// Ascending, from zero on.
    let nanoseconds: [Int]

    /// As close as it gets with at most `intervalCountMax` intervals up to `seconds`.
    init(upTo seconds: Double, intervalCountMax: Int = 10) {
        precondition(intervalCountMax > 0, "an axis has at least one interval")
        let end = max(0, Int((seconds * 1e9).rounded()))
        let step = Self.step(end: end, intervalCountMax: intervalCountMax)
        nanoseconds = Array(stride(from: 0, through: end, by: step))
    }

    private static func step(end: Int, intervalCountMax: Int) -> Int {
        var power = 1
        while true {
            for factor in [1, 2, 5] where end / (power * factor) <= intervalCountMax {
                return power * factor
            }
            power *= 10
        }
    }

    /// In milliseconds, such as `0.5`.
    static func label(nanoseconds: Int) -> String {
        NumberText.milliseconds(nanoseconds: nanoseconds)
    }
}
