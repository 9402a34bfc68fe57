package sim

import (
	"fmt"
	"strings"
	"time"

	"hanse/internal/replica"
	"hanse/internal/shard"
)

// Fault is a kind of trouble that a run may have.
type Fault uint8

// The faults.
const (
	Loss Fault = iota
	Delay
	Duplicate
	Reorder
	Partition
	OneWay
	Bridge
	Crash
	DiskError
	SlowDisk
	StalledDisk
	Pause
	Skew
	Jump
	Drift
	KillAppended
	KillCommitted
	KillDelivering
	Snapshots
	Transfer
	Moves
	LostDisk
	SlowApply
	ClientLoss
	ProviderTimeout
	ProviderLate
	ProviderDecline
	ProviderDuplicate
	ProviderOutage
	OldDisk
	Operator
	ReusedKey
	KillCalled
	faults
)

// firstLater is the first of the faults that came later. They draw from a generator of their own, so that the rest of a known seed's
// plan stays what it was.
const firstLater = OldDisk

// catalog names the faults and bounds their rates. Rates of kinds with a period are means in seconds between two
// of them; the others are probabilities, or what the text says.
var catalog = [faults]struct {
	name   string
	lo, hi float64
	what   string
}{
	Loss:              {"loss", 0.001, 0.2, "of the messages between nodes are lost"},
	Delay:             {"delay", 1, 20, "ms more on the way, on average, with a long tail"},
	Duplicate:         {"duplicate", 0.001, 0.2, "of the messages arrive twice"},
	Reorder:           {"reorder", 0.001, 0.3, "of the messages overtake others"},
	Partition:         {"partition", 4, 20, "s between partitions into two sides"},
	OneWay:            {"one-way", 4, 20, "s between cuts of one direction"},
	Bridge:            {"bridge", 6, 30, "s between partitions in which one node sees both sides"},
	Crash:             {"crash", 3, 20, "s between crashes of a node, which lose unsynced writes"},
	DiskError:         {"disk-error", 8, 40, "s between failing writes, syncs or reads: the node stops"},
	SlowDisk:          {"slow-disk", 2, 50, "ms more for a write, on average"},
	StalledDisk:       {"stalled-disk", 8, 40, "s between stalls of a disk by 0.5 to 15 s"},
	Pause:             {"pause", 4, 30, "s between pauses of a process by 0.1 to 5 s"},
	Skew:              {"skew", 0.01, 5, "s that clocks are apart, at most"},
	Jump:              {"jump", 5, 30, "s between jumps of a clock, by seconds or by minutes"},
	Drift:             {"drift", 0.0001, 0.01, "of a clock's speed, at most"},
	KillAppended:      {"kill-appended", 0.0005, 0.01, "of a leader's writes find it dead before the sync"},
	KillCommitted:     {"kill-committed", 0.0005, 0.01, "of a leader's commits find it dead before they are applied"},
	KillDelivering:    {"kill-delivering", 0.0005, 0.02, "of the deliveries from an outbox find the node dead"},
	Snapshots:         {"snapshots", 5, 100, "entries are kept in the log, so that those who were away need snapshots"},
	Transfer:          {"transfer", 2, 20, "s between transfers of a leadership"},
	Moves:             {"moves", 5, 20, "s between moves of a replica to another node, as asked for"},
	LostDisk:          {"lost-disk", 15, 40, "s between disks that are lost for good"},
	SlowApply:         {"slow-apply", 0.01, 0.3, "of the entries wait before they are applied"},
	ClientLoss:        {"client-loss", 0.01, 0.2, "of the requests and answers of clients are lost"},
	ProviderTimeout:   {"provider-timeout", 0.02, 0.3, "of the provider's answers are lost, with or without effect"},
	ProviderLate:      {"provider-late", 0.01, 0.15, "of the calls reach the provider long after they were given up"},
	ProviderDecline:   {"provider-decline", 0.02, 0.3, "of the authorizations are declined, a tenth as many captures and refunds"},
	ProviderDuplicate: {"provider-duplicate", 0.05, 0.5, "of the calls reach the provider twice and are called back"},
	ProviderOutage:    {"provider-outage", 10, 40, "s between outages of the provider"},
	OldDisk:           {"old-disk", 6, 25, "s between copies of a disk, each put back some time later"},
	Operator:          {"operator", 4, 20, "s between orders of an operator: drain, decommission, take back, another leader"},
	KillCalled:        {"kill-called", 0.0005, 0.02, "of the authorizations find the node dead when the provider has answered, before that is logged"},
	ReusedKey:         {"reused-key", 0.01, 0.2, "of the idempotency keys are used for a second request"},
}

func (f Fault) String() string { return catalog[f].name }

// Plan is what a seed decides before the first step.
type Plan struct {
	Seed  uint64
	Nodes int
	// Replicas is the number of replicas of each group.
	Replicas int
	Layout   shard.Layout
	// On says which faults the run has, Rate how much of each.
	On   [faults]bool
	Rate [faults]float64
	// Clients is the number of clients, Think their mean pause between two requests in ms.
	Clients int
	Think   int64
	// SKUs and Keys are the numbers of different ones: few make conflicts.
	SKUs, Keys int
	// LeaveOut is the number of a node that stays dead in the liveness phase, 0 for none.
	LeaveOut int
	// Knobs sets bounds and times of the replicas to extremes, so that paths for rare cases become common.
	Knobs []Knob
}

// Knob is a setting of the replicas that a run has at another value than production, after FoundationDB's.
type Knob struct {
	Name  string
	Value int
}

// knobs lists the settings that runs turn, and the range of values: a setting is left alone in half of the runs.
var knobs = []struct {
	name   string
	lo, hi int
	set    func(*replica.Config, int)
}{
	{"flush-ms", 20, 3000, func(c *replica.Config, v int) { c.FlushInterval = time.Duration(v) * time.Millisecond }},
	{"flush-bytes", 100, 20000, func(c *replica.Config, v int) { c.FlushBytes = v }},
	{"entry-commands", 1, 20, func(c *replica.Config, v int) { c.MaxEntryCommands = v }},
	{"entry-bytes", 100, 5000, func(c *replica.Config, v int) { c.MaxEntryBytes = v }},
	{"round-entries", 1, 4, func(c *replica.Config, v int) { c.MaxRoundEntries = v }},
	{"round-bytes", 1000, 100000, func(c *replica.Config, v int) { c.MaxRoundBytes = v }},
	{"queued-commands", 2, 30, func(c *replica.Config, v int) { c.MaxQueuedCommands = v }},
	{"queued-reads", 1, 10, func(c *replica.Config, v int) { c.MaxQueuedReads = v }},
	{"apply-bytes", 100, 5000, func(c *replica.Config, v int) { c.MaxApplyBytes = v }},
	{"cache-bytes", 100, 5000, func(c *replica.Config, v int) { c.CacheBytes = v }},
	{"message-bytes", 100, 5000, func(c *replica.Config, v int) { c.MaxMessageBytes, c.MaxInflightBytes = uint64(v), uint64(2*v) }},
	{"inflight-messages", 1, 8, func(c *replica.Config, v int) { c.MaxInflightMessages = v }},
	{"uncommitted-bytes", 2000, 50000, func(c *replica.Config, v int) { c.MaxUncommittedBytes = uint64(v) }},
	{"settling", 1, 20, func(c *replica.Config, v int) { c.MaxSettling = v }},
	{"idle-sync-ms", 50, 5000, func(c *replica.Config, v int) { c.IdleSync = time.Duration(v) * time.Millisecond }},
	{"election-ticks", 5, 20, func(c *replica.Config, v int) { c.ElectionTicks = v }},
	{"heartbeat-ticks", 1, 3, func(c *replica.Config, v int) { c.HeartbeatTicks = v }},
	{"prefer-leaders", 0, 1, func(c *replica.Config, v int) { c.PreferLeaders = v == 1 }},
	{"apply-workers", 1, 4, func(c *replica.Config, v int) { c.ApplyWorkers = v }},
}

// configure turns the knobs of a configuration.
func (p *Plan) configure(c *replica.Config) {
	for _, k := range p.Knobs {
		for _, known := range knobs {
			if known.name == k.Name {
				known.set(c, k.Value)
			}
		}
	}
	if p.On[Snapshots] {
		c.RetainEntries, c.RetainBytes, c.HoldBytes = int(p.Rate[Snapshots]), 16<<10, 32<<10
		c.TruncateEntries = 1 + c.RetainEntries/2
	}
}

// Draw returns the plan of a seed: a random subset of the faults at random rates (swarm testing: Groce et al., 2012). Nodes
// is the size of the cluster, 0 to draw it.
func Draw(seed uint64, nodes int) Plan {
	r := newRandom(seed, "plan")
	sizes := []int{1, 3, 3, 3, 3, 3, 5, 5, 7}
	p := Plan{Seed: seed, Nodes: pick(r, sizes)}
	if nodes > 0 {
		p.Nodes = nodes
	}
	share := 0.15 + 0.5*r.float() // some runs are full of faults, others have a few
	later := newRandom(seed, "later faults")
	for f := range faults {
		g := r
		if f >= firstLater {
			g = later
		}
		p.On[f] = g.chance(share)
		c := catalog[f]
		x := g.float()
		p.Rate[f] = c.lo + (c.hi-c.lo)*x*x // more often mild than wild
		if c.lo >= 2 {
			p.Rate[f] = c.hi - (c.hi-c.lo)*x*x // of periods the long ones are mild
		}
	}
	p.Replicas = p.Nodes
	if p.Nodes > 3 && r.chance(0.7) {
		p.Replicas = 3
	}
	p.Layout = shard.Layout{
		shard.Meta: 1, shard.Order: 1 + r.below(2), shard.Inventory: 1 + r.below(3), shard.Payment: 1 + r.below(2),
		shard.Notification: 1, shard.Keyspace: 1 + r.below(2),
	}
	p.Clients = 2 + r.below(5)
	if p.Think = r.between(100, 1500); r.chance(0.1) {
		p.Think = r.between(10, 60) // a rush
	}
	p.SKUs = 1 + r.below(5)
	p.Keys = 2 + r.below(4)
	if p.Nodes >= 3 && r.chance(0.25) && !p.On[LostDisk] && !p.On[OldDisk] { // a disk and a node would be more than a group of three bears
		p.LeaveOut = 1 + r.below(p.Nodes)
	}
	for _, k := range knobs {
		if value := int(r.between(int64(k.lo), int64(k.hi))); r.chance(0.5) {
			p.Knobs = append(p.Knobs, Knob{k.name, value})
		}
	}
	return p
}

// rate returns the rate of a fault, 0 when the run does not have it.
func (p *Plan) rate(f Fault) float64 {
	if !p.On[f] {
		return 0
	}
	return p.Rate[f]
}

// Faults lists what the run has, one a line.
func (p *Plan) Faults() string {
	var b strings.Builder
	for f := range faults {
		if p.On[f] {
			fmt.Fprintf(&b, "  %-18s %7.3f %s\n", f, p.Rate[f], catalog[f].what)
		}
	}
	if len(p.Knobs) > 0 {
		b.WriteString("  knobs")
		for _, k := range p.Knobs {
			fmt.Fprintf(&b, " %s=%d", k.Name, k.Value)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Without returns the plan without some faults.
func (p Plan) Without(list ...Fault) Plan {
	for _, f := range list {
		p.On[f] = false
	}
	return p
}
