import CheckpointModel
import CheckpointPlan
import CheckpointTransfer
import Logging

/// The agents that a pull reads with, each at its endpoint of the receiver.
extension PullRun {
    /// An agent that has the memory of the pull.
    struct Reading: Sendable {
        let own: ReadingAgent
        /// Where it has each location's data section.
        let addresses: [UInt]

        var agent: TransferAgent { own.agent }
    }

    /// Who is at an endpoint of the receiver. The schedule has the endpoint open while it is read from there.
    enum Seat: Sendable {
        case reading(Reading)
        /// It may touch the memory, and reads nothing more: it is being given the memory, or is being killed.
        case changing(TransferAgent)
        /// The last agent is dead, and the next one is not here yet.
        case empty

        /// Whoever may touch the memory.
        var agent: TransferAgent? {
            switch self {
            case .reading(let reading): reading.agent
            case .changing(let agent): agent
            case .empty: nil
            }
        }
    }

    private static let drainTimeout = Duration.seconds(2)
    private static let releaseTimeout = Duration.seconds(1)

    /// Takes the agents, and gives them the memory. Whoever has taken a seat is killed by ``abandon()`` where
    /// this fails.
    func startAgents() async {
        do throws(TransferError) {
            let all = try await agents.takeAll()
            seats = all.map { .changing($0.agent) }
            for (receiver, own) in all.enumerated() {
                seats[receiver] = .reading(try await reading(with: own))
            }
        } catch {
            end(.failure(Self.failure(error)))
        }
    }

    /// Gives the memory to an agent.
    private func reading(with agent: ReadingAgent) async throws(TransferError) -> Reading {
        var own = agent
        var addresses: [UInt] = []
        for location in target.locations {
            let mapping = TransferMapping(
                path: location.path, inode: location.inode,
                byteCount: location.fileByteCount, isWritable: true)
            let address: UInt
            if let known = own.mapped[mapping] {
                address = known
            } else {
                address = try await own.agent.map(mapping)
                own.mapped[mapping] = address
            }
            addresses.append(address + UInt(location.dataOffset))
        }
        return Reading(own: own, addresses: addresses)
    }

    private static func failure(_ error: TransferError) -> PullError {
        let code: PullError.Code =
            switch error.code {
            case .missing: .agentMissing
            case .cancelled: .cancelled
            case .failed, .lost, .timedOut: .system
            }
        return PullError(code, "the transfer agent: \(error.message)")
    }

    /// Ends an agent that does not answer or is gone, and sets another one in its place. The others read on;
    /// what it owes goes to them when it is dead.
    func replace(_ receiver: Int) {
        guard !isOver, case .reading(let reading) = seats[receiver] else { return }
        seats[receiver] = .changing(reading.agent)
        schedule.close(receiver)
        tasks.append(Task { await self.replace(reading.agent, at: receiver) })
    }

    private func replace(_ failed: TransferAgent, at receiver: Int) async {
        let isDead = await failed.kill()
        guard !isOver else { return }
        guard isDead else { return end(.failure(Self.memoryInUse)) }
        seats[receiver] = .empty
        schedule.settle(receiver, at: seconds)
        pump()
        do throws(TransferError) {
            let next = try await agents.take()
            guard !isOver else { return await agents.giveBack(next) }
            seats[receiver] = .changing(next.agent)
            let reading = try await reading(with: next)
            guard !isOver else { return }
            seats[receiver] = .reading(reading)
            schedule.reopen(receiver)
            pump()
        } catch {
            end(.failure(Self.failure(error)))
        }
    }

    /// Sees to it that what is still under way from a source that is none any more ends soon: nobody else may
    /// put those chunks before.
    func drain(_ number: Int) {
        guard !schedule.receivers(draining: number).isEmpty else { return }
        tasks.append(
            Task {
                do { try await Task.sleep(for: Self.drainTimeout) } catch { return }
                for receiver in schedule.receivers(draining: number) { replace(receiver) }
            })
    }

    // MARK: The end

    /// That memory may be written to by an agent that nobody can end.
    static let memoryInUse = PullError(
        .memoryInUse,
        "a transfer agent hangs and cannot be killed; the memory that it may write to is not used again"
    )

    /// Keeps the agents for the next pull, with what they have mapped where that is safe, and ends those that
    /// are not at rest; whether nobody touches the memory any more.
    func releaseAgents() async -> Bool {
        let seats = seats
        return await withTaskGroup(of: Bool.self) { group in
            for seat in seats {
                group.addTask {
                    guard let agent = seat.agent else { return true }
                    if case .reading(let reading) = seat, await self.release(reading.own) {
                        return true
                    }
                    return await agent.kill()
                }
            }
            var areGone = true
            for await isGone in group { areGone = areGone && isGone }
            return areGone
        }
    }

    /// Gives an agent back; `false` when it reads still, or does not let go of the memory.
    private func release(_ agent: ReadingAgent) async -> Bool {
        var own = agent
        guard await own.agent.waitForReads(timeout: Self.releaseTimeout) else { return false }
        if own.drivesCards {
            do throws(TransferError) {
                for address in own.mapped.values { try await own.agent.unmap(address) }
            } catch {
                return false
            }
            own.mapped = [:]
        }
        await agents.giveBack(own)
        return true
    }
}
