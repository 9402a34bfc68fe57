package replica

import "hanse/internal/shard"

// Observer learns what happens in the replicas of a node. For each shard it is called by one goroutine at a
// time, in the order of the log. It must not block.
type Observer interface {
	// Leader is called with true when this replica leads in term and has applied all entries of earlier
	// terms, and with false when that has ended.
	Leader(id shard.ID, term uint64, leader bool)
	// Applied is called after each applied entry that held commands. leader says that Leader(true) is in force.
	Applied(id shard.ID, leader bool, a shard.Applied)
}

// Consistency says how fresh a read has to be.
type Consistency uint8

const (
	// Linearizable reads see every command that was answered before they began. They are served by the leader.
	Linearizable Consistency = iota
	// AtLeast reads see a given index; any replica serves them once it has applied it.
	AtLeast
	// Stale reads see whatever the replica has applied.
	Stale
)
