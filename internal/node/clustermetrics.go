package node

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// clusterCollector shows the cluster as this node sees it. Its labels are nodes, which are few.
type clusterCollector struct {
	directory *directory
	heart     *heart
	steward   *steward

	state, health, rtt, offset, reached, clock, version, moves, blocked *prometheus.Desc
}

func newClusterCollector(d *directory, h *heart, s *steward) *clusterCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("cluster_"+name, help, labels, nil)
	}
	return &clusterCollector{
		directory: d, heart: h, steward: s,
		state:   desc("node_state", "1 for the state that is wanted of a node.", "node", "state"),
		health:  desc("node_health", "How a node fares: 0 healthy, 1 suspect, 2 unhealthy, 3 dead.", "node"),
		rtt:     desc("node_rtt_seconds", "Round trip of nine of ten heartbeats to a node.", "node"),
		offset:  desc("node_clock_offset_seconds", "A node's clock minus this one's.", "node"),
		reached: desc("link_reached", "1 when heartbeats from one node to another come back.", "from", "to"),
		clock:   desc("clock_offset_seconds", "This node's clock minus the median of all; absent while too few clocks are known."),
		version: desc("view_version", "Version of the newest view of the cluster that this node has."),
		moves:   desc("moves", "Replicas on their way."),
		blocked: desc("blocked", "What ought to be done and cannot be; on the meta shard's leader."),
	}
}

// Describe implements prometheus.Collector.
func (c *clusterCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.state, c.health, c.rtt, c.offset, c.reached, c.clock, c.version, c.moves, c.blocked} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *clusterCollector) Collect(out chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	name := func(node uint64) string { return strconv.FormatUint(node, 10) }
	k, v := c.directory.now(), c.heart.seen.Load()
	moves := 0
	for _, s := range k.view.Shards {
		if s.Move != nil {
			moves++
		}
	}
	for _, n := range k.view.Nodes {
		put(c.state, 1, name(n.Id), stateNames[n.State])
		put(c.health, float64(v.health[n.Id].Health), name(n.Id))
	}
	for _, l := range v.row {
		put(c.rtt, l.RTT.Seconds(), name(l.To))
		put(c.offset, l.Offset.Seconds(), name(l.To))
	}
	for from, row := range v.matrix {
		for _, l := range row {
			reached := 0.0
			if l.Reached {
				reached = 1
			}
			put(c.reached, reached, name(from), name(l.To))
		}
	}
	if v.compare {
		put(c.clock, v.offset.Seconds())
	}
	put(c.version, float64(k.version()))
	put(c.moves, float64(moves))
	put(c.blocked, float64(len(c.steward.obstacles())))
}
