import CheckpointModel
import CheckpointPlan
import CheckpointTransfer
import Logging

/// The agents that a pull reads with.
extension PullRun {
    /// An agent that has the memory of the pull.
    struct Reading: Sendable {
        let own: ReadingAgent
        /// Where it has each location's data section.
        let addresses: [UInt]

        var agent: TransferAgent { own.agent }
    }

    private static let drainTimeout = Duration.seconds(2)

    func startAgents() async {
        do throws(TransferError) {
            for agent in try await agents.takeAll() {
                readings.append(try await reading(with: agent))
            }
        } catch {
            end(.failure(Self.failure(error)))
        }
    }

    /// Gives the memory to an agent, which is killed when it does not take it.
    private func reading(with agent: ReadingAgent) async throws(TransferError) -> Reading {
        var own = agent
        var addresses: [UInt] = []
        do throws(TransferError) {
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
        } catch {
            await own.agent.kill()
            throw error
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

    /// Ends an agent that may still write, and starts another one; reads go on after that.
    func restart(_ failed: TransferAgent) async {
        guard !isRestarting, !isOver,
            let index = readings.firstIndex(where: { $0.agent === failed })
        else { return }
        isRestarting = true
        defer { isRestarting = false }
        guard await failed.kill() else {
            return end(
                .failure(PullError(.system, "the transfer agent hangs and cannot be killed")))
        }
        guard !isOver else { return }
        do throws(TransferError) {
            let next = try await reading(with: try await agents.take())
            readings[index] = next
            if isOver { await next.agent.kill() }
        } catch {
            end(.failure(Self.failure(error)))
        }
    }

    /// Sees to it that what is still under way from a source that is none any more ends soon: nobody else may
    /// put those chunks before.
    func drain(_ number: Int) {
        guard schedule.isDraining(number) else { return }
        tasks.append(
            Task {
                do { try await Task.sleep(for: Self.drainTimeout) } catch { return }
                for receiver in schedule.receivers(draining: number) {
                    await restart(readings[receiver].agent)
                }
                pump()
            })
    }
}
