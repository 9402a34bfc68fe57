package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hanse/client"
)

func (a *app) nodeCmd() *cobra.Command {
	return group("node", "See the nodes of the cluster, add some, take some away",
		a.nodeListCmd(), a.nodeShowCmd(), a.nodeDrainCmd(), a.nodeDecommissionCmd(), a.nodeActivateCmd(), a.nodeReplaceCmd(), a.nodeForgetCmd(),
		a.nodeTokenCmd(), a.nodeEventsCmd(), a.nodeDownAfterCmd())
}

func parseNode(s string) (uint64, error) {
	id, err := strconv.ParseUint(s, 10, 63)
	if err != nil || id == 0 {
		return 0, usage("%q is no node: want its number, as hanse node list shows it", s)
	}
	return id, nil
}

// withNode runs what is about one node.
func (a *app) withNode(do func(ctx context.Context, c *client.Client, id uint64) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		id, err := parseNode(args[0])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return do(cmd.Context(), c, id)
	}
}

func (a *app) nodeListCmd() *cobra.Command {
	var matrix bool
	cmd := &cobra.Command{Use: "list", Short: "List the nodes as the answering one sees them", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		v, err := c.Overview(cmd.Context())
		if err != nil {
			return err
		}
		return a.print(v, func(w io.Writer) {
			if matrix {
				printMatrix(w, v)
				return
			}
			table(w, "NODE\tNAME\tZONE\tROLES\tREST\tSTATE\tREPLICAS\tLEADERS\tCLOCK\tHEALTH", func(row func(...any)) {
				for i := range v.Nodes {
					n := &v.Nodes[i]
					offset := "–"
					if !n.Self && n.Health != client.Dead && n.State != client.Decommissioned {
						offset = fmt.Sprintf("%+.1f ms", n.ClockOffsetMS)
					}
					row(n.ID, orDash(n.Name), orDash(n.Zone), roles(n), n.REST, n.State, n.Replicas, n.Leaders, offset, healthOf(n))
				}
			})
			for _, why := range v.Cluster.Blocked {
				fmt.Fprintln(w, "Blocked:", why)
			}
		})
	}}
	cmd.Flags().BoolVar(&matrix, "matrix", false, "show who reaches whom")
	return cmd
}

func orDash(s string) string { return cmp.Or(s, "–") }

func roles(n *client.Node) string { return cmp.Or(strings.Join(n.Roles, ","), "all") }

// healthOf tells how a node fares, and what is the matter.
func healthOf(n *client.Node) string {
	if n.State == client.Decommissioned {
		return "–" // nobody asks it any more
	}
	s := n.Health
	if n.Reason != "" { // a healthy one may have a warning
		s += ": " + n.Reason
	}
	if n.Health != client.Healthy && !n.HealthSince.IsZero() {
		s += " (since " + timeOfDay(n.HealthSince) + ")"
	}
	return s
}

// printMatrix shows in each row whom a node reaches, with the time of a round trip.
func printMatrix(w io.Writer, v *client.Overview) {
	links := make(map[[2]uint64]client.Reach)
	for _, l := range v.Reachability {
		links[[2]uint64{l.From, l.To}] = l
	}
	members := slices.DeleteFunc(slices.Clone(v.Nodes), func(n client.Node) bool { return n.State == client.Decommissioned })
	head := "FROM \\ TO"
	for _, n := range members {
		head += fmt.Sprintf("\t%d", n.ID)
	}
	table(w, head, func(row func(...any)) {
		for _, from := range members {
			cells := []any{from.ID}
			for _, to := range members {
				l, known := links[[2]uint64{from.ID, to.ID}]
				switch {
				case from.ID == to.ID:
					cells = append(cells, "·")
				case !known:
					cells = append(cells, "?")
				case !l.Reached:
					cells = append(cells, "no, since "+timeOfDay(l.Since))
				default:
					cells = append(cells, fmt.Sprintf("%.1f ms", l.RTTMS))
				}
			}
			row(cells...)
		}
	})
}

func (a *app) nodeShowCmd() *cobra.Command {
	return &cobra.Command{Use: "show NODE", Short: "Show a node", Args: cobra.ExactArgs(1),
		RunE: a.withNode(func(ctx context.Context, c *client.Client, id uint64) error {
			n, err := c.Node(ctx, id)
			if err != nil {
				return err
			}
			return a.showNode(n)
		})}
}

func (a *app) showNode(n *client.Node) error {
	return a.print(n, func(w io.Writer) {
		table(w, fmt.Sprintf("node %d\t%s", n.ID, n.Name), func(row func(...any)) {
			since := func(t time.Time, why string) string {
				s := ""
				if !t.IsZero() {
					s = " since " + t.Format(time.DateTime)
				}
				if why != "" {
					s += ": " + why
				}
				return s
			}
			row("state", n.State+since(n.StateSince, n.StateReason))
			row("health", n.Health+since(n.HealthSince, n.Reason))
			row("zone", orDash(n.Zone))
			row("roles", roles(n))
			row("addresses", fmt.Sprintf("REST %s, peers %s, gossip %s", n.REST, n.Peers, orDash(n.Gossip)))
			row("replicas", fmt.Sprintf("%d, leads %d", n.Replicas, n.Leaders))
			if !n.Self {
				row("from here", fmt.Sprintf("round trip %.1f ms, clock %+.1f ms", n.RTTMS, n.ClockOffsetMS))
			}
			row("program", fmt.Sprintf("version %s, feature level %d", orDash(n.Version), n.Features))
			row("started", strings.TrimPrefix(since(n.StartedAt, ""), " since ")+fmt.Sprintf(" (start %d)", n.Boot))
		})
	})
}

// watch looks every now and then until done, and tells people how far it is when that has changed. When it is interrupted, it says
// what goes on without it.
func (a *app) watch(ctx context.Context, goesOn string, look func(context.Context) (done bool, progress string, err error)) error {
	said := ""
	for {
		done, progress, err := look(ctx)
		if ctx.Err() == nil {
			if err != nil {
				return err
			}
			if progress != said && !a.json {
				fmt.Fprintln(a.err, progress)
				said = progress
			}
			if done {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			if !a.json {
				fmt.Fprintln(a.err, goesOn)
			}
			return ctx.Err()
		case <-time.After(a.poll):
		}
	}
}

// patience is how many looks it may take until what was asked for has reached the node that answers.
const patience = 20

// left counts the replicas on a node, and the shards that it leads.
func left(s *client.Shards, id uint64) (replicas, leads int) {
	for _, sh := range s.Shards {
		if sh.Leader == id {
			leads++
		}
		if slices.ContainsFunc(sh.Replicas, func(r client.Replica) bool { return r.Node == id }) {
			replicas++
		}
	}
	return replicas, leads
}

func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "why, for those who look at it later")
}

func (a *app) nodeDrainCmd() *cobra.Command {
	var reason string
	var wait bool
	cmd := &cobra.Command{Use: "drain NODE", Short: "Take the leaderships from a node, so that it can be stopped", Args: cobra.ExactArgs(1),
		Long: "Take the leaderships from a node, give it no new replicas and let balancers pass it over, so that it can be stopped: for an upgrade, or\nfor work on its machine. Its replicas stay. hanse node activate ends it. Run again, it goes on where it was.",
		RunE: a.withNode(func(ctx context.Context, c *client.Client, id uint64) error {
			n, err := c.Drain(ctx, id, reason)
			if err != nil {
				return err
			}
			if wait {
				goesOn := fmt.Sprintf("Node %d goes on giving its leaderships away. hanse node drain %d --wait looks again, hanse node activate %d takes it back.", id, id, id)
				looks := 0
				err := a.watch(ctx, goesOn, func(ctx context.Context) (bool, string, error) {
					s, err := c.Shards(ctx)
					if err != nil {
						return false, "", err
					}
					if n, err = c.Node(ctx, id); err != nil { // by a node that may not have heard of it yet
						return false, "", err
					}
					switch looks++; {
					case n.State == client.Draining:
						looks = patience
					case looks >= patience:
						return false, "", fmt.Errorf("node %d is %s now: somebody has ended this", id, n.State)
					}
					_, leads := left(s, id)
					return leads == 0 && n.State == client.Draining, fmt.Sprintf("node %d leads %s", id, plural(leads, "shard")), nil
				})
				if err != nil {
					return err
				}
			}
			return a.print(n, func(w io.Writer) {
				fmt.Fprintf(w, "node %d: %s", id, n.State)
				if wait {
					fmt.Fprint(w, ", leads nothing; it can be stopped")
				}
				fmt.Fprintln(w)
			})
		})}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it leads nothing")
	reasonFlag(cmd, &reason)
	return cmd
}

func (a *app) nodeDecommissionCmd() *cobra.Command {
	var reason string
	var wait, dryRun bool
	cmd := &cobra.Command{Use: "decommission NODE", Short: "Move everything away from a node, for good", Args: cobra.ExactArgs(1),
		Long: "Move all replicas of a node to others; then it is no member any more and can be switched off for good. Each shard keeps all its copies\non the way. It is refused, and says why, when the others could not take the replicas. hanse node activate ends it before it is\ndone. Run again, it goes on where it was.",
		RunE: a.withNode(func(ctx context.Context, c *client.Client, id uint64) error {
			n, err := c.Node(ctx, id)
			if err != nil {
				return err
			}
			if n.State != client.Decommissioned { // that is what was asked for
				if n, err = c.Decommission(ctx, id, reason, dryRun); err != nil {
					return err
				}
			}
			if dryRun {
				return a.print(n, func(w io.Writer) {
					fmt.Fprintf(w, "node %d (%s) can be decommissioned; %s would move\n", id, n.State, plural(n.Replicas, "replica"))
				})
			}
			if wait && n.State != client.Decommissioned {
				if n, err = a.watchDecommission(ctx, c, id); err != nil {
					return err
				}
			}
			return a.print(n, func(w io.Writer) { fmt.Fprintf(w, "node %d: %s\n", id, n.State) })
		})}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done, and show how far it is")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say whether it can be done")
	reasonFlag(cmd, &reason)
	return cmd
}

// watchDecommission waits until a node has nothing left.
func (a *app) watchDecommission(ctx context.Context, c *client.Client, id uint64) (n *client.Node, err error) {
	goesOn := fmt.Sprintf("Node %d goes on moving its shards away. hanse node decommission %d --wait looks again, hanse node activate %d keeps it.", id, id, id)
	began, total, looks := a.now(), -1, 0
	err = a.watch(ctx, goesOn, func(ctx context.Context) (bool, string, error) {
		v, err := c.Overview(ctx)
		if err != nil {
			return false, "", err
		}
		s, err := c.Shards(ctx)
		if err != nil {
			return false, "", err
		}
		i := slices.IndexFunc(v.Nodes, func(n client.Node) bool { return n.ID == id })
		if i < 0 { // forgotten altogether: nothing is left
			n = &client.Node{ID: id, State: client.Decommissioned}
			return true, "", nil
		}
		n = &v.Nodes[i]
		switch looks++; {
		case n.State == client.Decommissioning || n.State == client.Decommissioned:
			looks = patience
		case looks >= patience:
			return false, "", fmt.Errorf("node %d is %s now: somebody has ended this", id, n.State)
		}
		replicas, _ := left(s, id)
		total = max(total, replicas)
		progress := fmt.Sprintf("node %d: %s of %d left", id, plural(replicas, "shard"), total)
		if estimate := estimateLeft(s, id, replicas, total-replicas, a.now().Sub(began)); estimate > 0 {
			progress += fmt.Sprintf(", about %v", estimate)
		}
		for _, why := range v.Cluster.Blocked {
			progress += "; blocked: " + why
		}
		return n.State == client.Decommissioned, progress, nil
	})
	return n, err
}

// estimateLeft guesses how long the rest takes: as long as what is done has taken, or as the moves under way say of themselves. It
// is rounded so that it does not change with every look; 0 for no idea.
func estimateLeft(s *client.Shards, id uint64, replicas, done int, took time.Duration) time.Duration {
	if replicas == 0 {
		return 0
	}
	var left time.Duration
	if done > 0 {
		left = took / time.Duration(done) * time.Duration(replicas)
	} else {
		moves := 0
		for _, sh := range s.Shards {
			if m := sh.Move; m != nil && m.From == id && m.LeftSeconds > 0 {
				left += time.Duration(m.LeftSeconds * float64(time.Second))
				moves++
			}
		}
		if moves > 0 {
			left = left / time.Duration(moves) * time.Duration((replicas+moves-1)/moves)
		}
	}
	switch {
	case left > 2*time.Minute:
		return left.Round(time.Minute)
	case left > 20*time.Second:
		return left.Round(10 * time.Second)
	}
	return left.Round(5 * time.Second)
}

func (a *app) nodeActivateCmd() *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "activate NODE", Short: "Use a node again that was drained, or is being decommissioned", Args: cobra.ExactArgs(1),
		RunE: a.withNode(func(ctx context.Context, c *client.Client, id uint64) error {
			n, err := c.Activate(ctx, id, reason)
			if err != nil {
				return err
			}
			return a.print(n, func(w io.Writer) { fmt.Fprintf(w, "node %d: %s\n", id, n.State) })
		})}
	reasonFlag(cmd, &reason)
	return cmd
}

// replacement is the JSON of hanse node replace.
type replacement struct {
	Node    *client.Node `json:"node"`
	Join    []string     `json:"join"`
	Token   string       `json:"token"`
	Command string       `json:"command"`
}

func (a *app) nodeReplaceCmd() *cobra.Command {
	return &cobra.Command{Use: "replace NODE", Short: "Say how a new node takes the place of one that is lost for good", Args: cobra.ExactArgs(1),
		Long: "Make a join token, and print the command that starts a node on a new machine in the place of one whose data is lost. The new node\ngets the replicas of the old one; the old one is never heard again, even if it comes back. A node that still works is\ndecommissioned instead, and each shard keeps all its copies.",
		RunE: a.withNode(func(ctx context.Context, c *client.Client, id uint64) error {
			v, err := c.Overview(ctx)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(v.Nodes, func(n client.Node) bool { return n.ID == id })
			if i < 0 {
				_, err := c.Node(ctx, id) // which says so
				return err
			}
			n := &v.Nodes[i]
			switch {
			case n.State == client.Decommissioned:
				return fmt.Errorf("node %d is decommissioned already: nothing is left to be taken over, and a new node just joins (hanse node token)", id)
			case n.Health == client.Healthy || n.Health == client.Suspect:
				return fmt.Errorf("node %d is %s: let a new node join (hanse node token), then hanse node decommission %d; nothing is lost on the way", id, n.Health, id)
			}
			r := replacement{Node: n}
			for _, o := range v.Nodes {
				if o.ID != id && o.State == client.Active && o.Health == client.Healthy && len(r.Join) < 3 {
					r.Join = append(r.Join, o.REST)
				}
			}
			if len(r.Join) == 0 {
				return fmt.Errorf("no other node is active and healthy: there is nobody to join")
			}
			if r.Token, err = c.CreateJoinToken(ctx); err != nil {
				return err
			}
			r.Command = fmt.Sprintf("HANSE_JOIN_TOKEN=%s hanse serve --data DIR --host ADDRESS --join %s --replace %d", r.Token, strings.Join(r.Join, ","), id)
			if n.Zone != "" {
				r.Command += " --zone " + n.Zone
			}
			if len(n.Roles) > 0 {
				r.Command += " --roles " + strings.Join(n.Roles, ",")
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, `Node %d is %s. A new node with an empty directory takes its place: it gets a number of its own and the
replicas of node %d, which is never heard again, even if it comes back. On the new machine, with its directory, its
address and the payment provider of the other nodes:

  %s

hanse node list shows the new node, hanse shard list how its replicas come. Older tokens are worth nothing any more.
`, id, healthOf(n), id, r.Command)
			})
		})}
}

func (a *app) nodeForgetCmd() *cobra.Command {
	var reason, confirm string
	cmd := &cobra.Command{Use: "forget NODE [--confirm TEXT]", Short: "Say that a node is lost for good", Args: cobra.ExactArgs(1),
		Long: "Say that a node is lost for good, without anything in its place: its replicas are rebuilt on the others at once, and it is never heard\nagain, even if it comes back. What only it had is lost; when that was the majority of a shard, see hanse shard recover.\nWithout the words of --confirm nothing is done: the command only says what would be, which words it wants, and exits with 1.",
		RunE: a.withNode(func(ctx context.Context, c *client.Client, id uint64) error {
			if want := fmt.Sprintf("node %d is lost", id); confirm != want {
				n, err := c.Node(ctx, id)
				if err != nil {
					return err
				}
				return a.dryRun(fmt.Sprintf("--confirm %q if that is right", want), map[string]any{"node": n, "confirm": want},
					"Node %d (%s, with %s) would never be heard again, and its data would be worthless.", id, healthOf(n), plural(n.Replicas, "replica"))
			}
			n, err := c.Forget(ctx, id, reason)
			if err != nil {
				return err
			}
			return a.print(n, func(w io.Writer) { fmt.Fprintf(w, "node %d: %s\n", id, n.State) })
		})}
	cmd.Flags().StringVar(&confirm, "confirm", "", "that it is so, in the words that the command asks for")
	reasonFlag(cmd, &reason)
	return cmd
}

func (a *app) nodeTokenCmd() *cobra.Command {
	return &cobra.Command{Use: "token", Short: "Make a token that lets nodes join; the one before is worth nothing from then on", Args: cobra.NoArgs,
		Long: "Make a token that lets nodes join; the one before is worth nothing from then on. On the new machine:\n\n  HANSE_JOIN_TOKEN=... hanse serve --data DIR --host ADDRESS --join NODE:7400",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			token, err := c.CreateJoinToken(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(map[string]string{"token": token}, func(w io.Writer) { fmt.Fprintln(w, token) })
		}}
}

func (a *app) nodeEventsCmd() *cobra.Command {
	var after uint64
	var limit int
	cmd := &cobra.Command{Use: "events", Short: "Show what happened to the cluster, oldest first", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if limit < 1 || limit > 1000 {
			return usage("--limit %d: want 1 to 1000", limit)
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		events, err := c.ClusterEvents(cmd.Context(), after, limit)
		if err != nil {
			return err
		}
		return a.print(map[string]any{"events": events}, func(w io.Writer) {
			table(w, "SEQ\tAT\tEVENT\tNODE\tSHARD\tDETAIL", func(row func(...any)) {
				for _, e := range events {
					node := "–"
					if e.Node != 0 {
						node = strconv.FormatUint(e.Node, 10)
					}
					row(e.Seq, e.At.Format(time.DateTime), e.Type, node, orDash(e.Shard), e.Detail)
				}
			})
			if len(events) == limit {
				fmt.Fprintf(w, "There may be more: --after %d\n", events[len(events)-1].Seq)
			}
		})
	}}
	cmd.Flags().Uint64Var(&after, "after", 0, "number of the last event that is known")
	cmd.Flags().IntVar(&limit, "limit", 100, "events at most, up to 1000")
	return cmd
}

func (a *app) nodeDownAfterCmd() *cobra.Command {
	return &cobra.Command{Use: "down-after DURATION", Short: "Set how long a node has to be dead before its replicas are rebuilt; 0 for the default", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := time.ParseDuration(args[0])
			if err != nil || d < 0 || d%time.Second != 0 {
				return usage("%q is no time: want whole seconds, for example 90s or 10m", args[0])
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if err := c.SetDownAfter(cmd.Context(), d); err != nil {
				return err
			}
			return a.print(map[string]int64{"seconds": int64(d / time.Second)}, func(w io.Writer) {
				if d == 0 {
					fmt.Fprintln(w, "a dead node's replicas are rebuilt after the default time")
					return
				}
				fmt.Fprintf(w, "a dead node's replicas are rebuilt after %v\n", d)
			})
		}}
}
