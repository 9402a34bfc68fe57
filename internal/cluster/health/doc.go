// Package health judges how the nodes of a cluster fare, from heartbeats that came and that did not.
//
//	heartbeat answered ──▶ ┌──────────┐
//	heartbeat missed ────▶ │ Detector │──▶ Healthy ⇄ Suspect ⇄ Unhealthy ─▶ Dead, with reason and since when
//	rows of other nodes ─▶ └──────────┘──▶ reachability of each from each; offset of the own clock
//
// A detector is a step machine: it is told what happened and when, and reads no clock. It never moves ownership, which is
// what Raft's elections are for; it says who is not to be chosen, who should give its leaderships up, and whom to replace.
package health
