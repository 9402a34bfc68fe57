// Package health judges how the nodes of a cluster fare, from heartbeats that came and that did not.
//
//	heartbeat answered ──▶ ┌──────────┐
//	heartbeat missed ────▶ │ Detector │──▶ Healthy ⇄ Suspect ⇄ Unhealthy ─▶ Dead, with reason and since when
//	rows of other nodes ─▶ └──────────┘──▶ reachability of each from each; offset of the own clock
//
// A detector is a step machine: it is told what happened and when, and reads no clock. It never moves ownership, which is
// what Raft's elections are for; it says who is not to be chosen, who should give its leaderships up, and whom to replace.
//
// Who accuses may itself be what fails, so a node is unhealthy only by more than one voice:
//   - It is cut off when most of those who can be asked do not reach it, by their rows and by this node's own link. What only
//     some do not reach is suspect, and nothing follows; and what is said by one who is cut off makes nobody suspect.
//   - A node that reaches no other judges itself, and nobody else.
//   - Time in which this process stood still, or its clock was set, is nobody's silence.
//   - A clock is judged by a majority of clocks that agree, and an answer's time by those of other peers.
//
// What a disk does, its own node says.
package health
