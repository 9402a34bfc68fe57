package cli

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hanse/client"
)

func (a *app) shardCmd() *cobra.Command {
	return group("shard", "See the shards and where their replicas are, move them, recover one", a.shardListCmd(), a.shardMoveCmd(), a.shardRecoverCmd())
}

var shardName = regexp.MustCompile(`^[a-z]+/[0-9]{1,5}$`)

// withShard runs what is about one shard.
func (a *app) withShard(do func(ctx context.Context, c *client.Client, shard string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if !shardName.MatchString(args[0]) {
			return usage("%q is no shard: want for example order/1, as hanse shard list shows it", args[0])
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return do(cmd.Context(), c, args[0])
	}
}

func (a *app) shardListCmd() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the shards that the answering node knows of", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		s, err := c.Shards(cmd.Context())
		if err != nil {
			return err
		}
		return a.print(s, func(w io.Writer) {
			table(w, "SHARD\tSTATE\tLEADER\tTERM\tAPPLIED\tCOMMIT\tREPLICAS\tMOVE", func(row func(...any)) {
				for _, sh := range s.Shards {
					leader := fmt.Sprint(sh.Leader)
					if sh.Leader == 0 {
						leader = "none"
					}
					if sh.Preferred != 0 && sh.Preferred != sh.Leader {
						leader += fmt.Sprintf(" (to be %d)", sh.Preferred)
					}
					var replicas []string
					for _, r := range sh.Replicas {
						replicas = append(replicas, fmt.Sprintf("%d:%s", r.Node, r.State))
					}
					row(sh.ID, sh.State, leader, sh.Term, sh.Applied, sh.Commit, strings.Join(replicas, " "), describeMove(sh.Move))
				}
			})
		})
	}}
}

// describeMove tells of a replica on its way, and nothing of none.
func describeMove(m *client.Move) string {
	if m == nil {
		return ""
	}
	s := fmt.Sprintf("%d→%d", m.From, m.To)
	if m.From == 0 {
		s = fmt.Sprintf("to %d", m.To)
	}
	s += fmt.Sprintf(" %s: %s, %.0f %%", m.Reason, m.Doing, 100*m.Share)
	if m.LeftSeconds > 0 {
		s += fmt.Sprintf(", about %v", time.Duration(m.LeftSeconds*float64(time.Second)).Round(time.Second))
	}
	return s
}

func (a *app) shardMoveCmd() *cobra.Command {
	var from, to uint64
	var wait bool
	cmd := &cobra.Command{Use: "move SHARD --from NODE --to NODE", Short: "Move a replica from one node to another", Args: cobra.ExactArgs(1),
		Long: "Move a shard's replica from one node to another. The new one catches up first; then it takes the old one's place at once, so that the\nshard has all its copies at every moment.",
		RunE: a.withShard(func(ctx context.Context, c *client.Client, shard string) error {
			if from == 0 || to == 0 || from == to {
				return usage("want --from NODE and --to NODE, two of them")
			}
			if err := c.MoveReplica(ctx, shard, from, to); err != nil {
				return err
			}
			if wait {
				if err := a.watchMove(ctx, c, shard, from, to); err != nil {
					return err
				}
			}
			return a.print(map[string]any{"shard": shard, "from": from, "to": to, "done": wait}, func(w io.Writer) {
				if wait {
					fmt.Fprintf(w, "%s is on node %d\n", shard, to)
					return
				}
				fmt.Fprintf(w, "%s moves from node %d to node %d; hanse shard list shows how far it is\n", shard, from, to)
			})
		})}
	cmd.Flags().Uint64Var(&from, "from", 0, "node that gives the replica")
	cmd.Flags().Uint64Var(&to, "to", 0, "node that gets it")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done, and show how far it is")
	return cmd
}

func (a *app) watchMove(ctx context.Context, c *client.Client, shard string, from, to uint64) error {
	goesOn := fmt.Sprintf("%s goes on moving; hanse shard list shows how far it is.", shard)
	looks := 0
	return a.watch(ctx, goesOn, func(ctx context.Context) (bool, string, error) {
		s, err := c.Shards(ctx)
		if err != nil {
			return false, "", err
		}
		i := slices.IndexFunc(s.Shards, func(sh client.Shard) bool { return sh.ID == shard })
		if i < 0 {
			return false, "the answering node knows nothing of " + shard, nil
		}
		sh := &s.Shards[i]
		has := func(node uint64) bool {
			return slices.ContainsFunc(sh.Replicas, func(r client.Replica) bool { return r.Node == node })
		}
		switch looks++; {
		case sh.Move != nil:
			looks = patience
			return false, shard + ": " + describeMove(sh.Move), nil
		case has(to) && !has(from):
			return true, shard + ": done", nil
		case looks > patience && has(from) && !has(to):
			return false, "", fmt.Errorf("the move of %s was given up: hanse node events says why", shard)
		}
		return false, shard + ": begins, or is between two steps", nil
	})
}

func (a *app) shardRecoverCmd() *cobra.Command {
	var unsafe bool
	var confirm string
	cmd := &cobra.Command{Use: "recover SHARD --unsafe [--confirm TEXT]", Short: "Go on with one replica of a shard whose majority is lost for good", Args: cobra.ExactArgs(1),
		Long: `Go on with one replica of a shard when the majority of its replicas is lost for good: their disks, not only their machines.

It is unsafe: what the lost replicas had confirmed and the survivor has not is gone. Orders may be missing that customers were told
of, and payments that were made; hanse audit finds differences between shards afterwards, and with the provider. Bring a lost
node back if there is any way; then nothing is lost.

Without --confirm nothing is done: the command shows what survives and what is missing, which words it wants to be confirmed with, and exits with 1.`,
		RunE: a.withShard(func(ctx context.Context, c *client.Client, shard string) error {
			if !unsafe {
				return usage("recovering %s may lose what was confirmed to customers: read hanse shard recover --help, and say --unsafe", shard)
			}
			r, err := c.RecoverShard(ctx, shard, confirm)
			if err != nil {
				return err
			}
			if err := a.print(r, func(w io.Writer) { a.describeRecovery(w, r, confirm) }); err != nil {
				return err
			}
			if !r.Done {
				return errNotDone
			}
			return nil
		})}
	cmd.Flags().BoolVar(&unsafe, "unsafe", false, "that you know that it is")
	cmd.Flags().StringVar(&confirm, "confirm", "", "the words that the command asks for without this")
	return cmd
}

func (a *app) describeRecovery(w io.Writer, r *client.Recovery, confirm string) {
	nodes := func(ids []uint64) string {
		if len(ids) == 0 {
			return "none"
		}
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ", "), "[]")
	}
	if r.Done {
		fmt.Fprintf(w, "%s goes on with the replica of node %d alone, from entry %d of term %d. What nodes %s had beyond that is lost.\n", r.Shard, r.Node, r.Index, r.Term, nodes(r.Missing))
		fmt.Fprintln(w, "More replicas are built from it now: see hanse shard list. Then look for what is missing: hanse audit. It is in the journal: hanse node events.")
		return
	}
	table(w, r.Shard+"\t", func(row func(...any)) {
		row("survives on", nodes(r.Survivors))
		row("missing on", nodes(r.Missing))
		row("goes on with", fmt.Sprintf("node %d, entry %d of term %d", r.Node, r.Index, r.Term))
	})
	if r.Warning != "" {
		fmt.Fprintln(w, r.Warning)
	}
	if confirm != "" {
		fmt.Fprintln(w, "What was confirmed is not what would be done.")
	}
	fmt.Fprintf(w, "Nothing has been done. If the missing replicas are lost for good:\n\n  hanse shard recover %s --unsafe --confirm %q\n", r.Shard, r.Confirm)
}
