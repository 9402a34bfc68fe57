package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"hanse/client"
)

func (a *app) paymentCmd() *cobra.Command {
	get := &cobra.Command{Use: "get PAYMENT", Short: "Show a payment", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := c.Payment(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.print(p, func(w io.Writer) {
			fmt.Fprintf(w, "%s of order %s: authorized %s, captured %s, refunded %s, voided %s\n", p.ID, p.OrderID,
				money(p.Authorized, p.Currency), money(p.Captured, p.Currency), money(p.Refunded, p.Currency), money(p.Voided, p.Currency))
			table(w, "OPERATION\tKIND\tSTATE\tAMOUNT\tATTEMPTS\tCODE", func(row func(...any)) {
				for _, op := range p.Operations {
					row(op.ID, op.Kind, op.State, money(op.Amount, ""), op.Attempts, op.Code)
				}
			})
		})
	}}
	var stuck bool
	var limit int
	list := &cobra.Command{Use: "list", Short: "List payments", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		shards, err := c.Shards(cmd.Context())
		if err != nil {
			return err
		}
		all := []client.Payment{}
		for i := range shards.Counts["payment"] {
			page, _, err := c.Payments(cmd.Context(), i, "", limit, stuck)
			if err != nil {
				return err
			}
			all = append(all, page...)
		}
		all = all[:min(len(all), limit)]
		return a.print(map[string]any{"payments": all}, func(w io.Writer) {
			table(w, "PAYMENT\tORDER\tAUTHORIZED\tCAPTURED\tREFUNDED\tVOIDED", func(row func(...any)) {
				for _, p := range all {
					row(p.ID, p.OrderID, money(p.Authorized, p.Currency), money(p.Captured, p.Currency), money(p.Refunded, p.Currency), money(p.Voided, p.Currency))
				}
			})
		})
	}}
	list.Flags().BoolVar(&stuck, "stuck", false, "only those that need a person")
	list.Flags().IntVar(&limit, "limit", 20, "rows")
	return group("payment", "Show payments", get, list)
}

func (a *app) sagaCmd() *cobra.Command {
	var stuck, yes bool
	var limit int
	var cursor, operator, evidence, decision string
	list := &cobra.Command{Use: "list", Short: "List orders that are on their way", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		sagas, next, err := c.Sagas(cmd.Context(), stuck, cursor, limit)
		if err != nil {
			return err
		}
		if sagas == nil {
			sagas = []client.Saga{}
		}
		return a.print(map[string]any{"sagas": sagas, "next_cursor": next}, func(w io.Writer) {
			if len(sagas) == 0 {
				fmt.Fprintln(w, "Nothing is on its way.")
				return
			}
			table(w, "ORDER\tSTATE\tSTEP\tCAUSE\tSINCE\tATTEMPTS\tNEXT TRY\tMONEY AT RISK\tUNITS AT RISK", func(row func(...any)) {
				for _, s := range sagas {
					if len(s.Stuck) == 0 {
						row(s.OrderID, s.State, "–", "–", s.UpdatedAt.Format("15:04:05"), "–", "–", "–", "–")
					}
					for _, st := range s.Stuck {
						row(s.OrderID, s.State, fmt.Sprintf("%d %s", st.Seq, st.Step), shorten(st.Cause, 50), st.Since.Format("15:04:05"),
							st.Attempts, st.NextTry.Format("15:04:05"), money(st.Amount, s.Currency), st.Units)
					}
				}
			})
		})
	}}
	list.Flags().BoolVar(&stuck, "stuck", false, "only those with a stuck step")
	list.Flags().IntVar(&limit, "limit", 50, "rows")
	list.Flags().StringVar(&cursor, "cursor", "", "where the page before ended")
	showSaga := func(s *client.Saga) error {
		return a.print(s, func(w io.Writer) {
			fmt.Fprintf(w, "%s  %s  %s  payment %s\n", s.OrderID, s.State, money(s.Total, s.Currency), s.PaymentStep)
			for _, l := range s.Legs {
				fmt.Fprintf(w, "  %s: %s\n", l.Shard, l.State)
			}
			for _, st := range s.Stuck {
				fmt.Fprintf(w, "  stuck: step %d, %s, since %s, %d attempts, next %s: %s (%s and %d units at risk)\n", st.Seq, st.Step,
					st.Since.Format("15:04:05"), st.Attempts, st.NextTry.Format("15:04:05"), st.Cause, money(st.Amount, s.Currency), st.Units)
			}
		})
	}
	one := func(do func(ctx context.Context, c *client.Client, args []string) (*client.Saga, error)) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			s, err := do(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			return showSaga(s)
		}
	}
	seqOf := func(s string) (uint64, error) {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return 0, usage("step %q: want its number, as hanse saga list shows it", s)
		}
		return n, nil
	}
	show := &cobra.Command{Use: "show ORDER", Short: "Show an order's saga", Args: cobra.ExactArgs(1),
		RunE: one(func(ctx context.Context, c *client.Client, args []string) (*client.Saga, error) {
			return c.Saga(ctx, args[0])
		})}
	retry := &cobra.Command{Use: "retry ORDER STEP", Short: "Send a stuck step again now", Args: cobra.ExactArgs(2),
		RunE: one(func(ctx context.Context, c *client.Client, args []string) (*client.Saga, error) {
			seq, err := seqOf(args[1])
			if err != nil {
				return nil, err
			}
			return c.RetryStep(ctx, args[0], seq, operator)
		})}
	retry.Flags().StringVar(&operator, "operator", os.Getenv("USER"), "who decides")
	resolve := &cobra.Command{Use: "resolve ORDER STEP --decision done|skip --evidence TEXT", Short: "Settle a stuck step by hand; without --yes only say what would happen", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			seq, err := seqOf(args[1])
			if err != nil {
				return err
			}
			if decision != "done" && decision != "skip" || evidence == "" {
				return usage("say --decision done (it has happened) or skip (give it up), and --evidence, how that is known")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			s, err := c.Saga(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			for _, st := range s.Stuck {
				if st.Seq != seq {
					continue
				}
				if !yes {
					fmt.Fprintf(a.err, "Dry run. Step %d (%s) of order %s would be recorded as %s, with %s and %d units at risk. Repeat with --yes to decide.\n",
						seq, st.Step, s.OrderID, map[string]string{"done": "done", "skip": "given up"}[decision], money(st.Amount, s.Currency), st.Units)
					return nil
				}
				resolved, err := c.ResolveStep(cmd.Context(), args[0], seq, decision, evidence, operator)
				if err != nil {
					return err
				}
				return showSaga(resolved)
			}
			return fmt.Errorf("order %s has no stuck step %d", args[0], seq)
		}}
	resolve.Flags().StringVar(&decision, "decision", "", "done or skip")
	resolve.Flags().StringVar(&evidence, "evidence", "", "how it is known")
	resolve.Flags().StringVar(&operator, "operator", os.Getenv("USER"), "who decides")
	resolve.Flags().BoolVar(&yes, "yes", false, "decide")
	return group("saga", "Look after orders that are on their way", list, show, retry, resolve)
}

func (a *app) kvCmd() *cobra.Command {
	var keyspace string
	var version uint64
	written := func(wr *client.Written) error {
		return a.print(wr, func(w io.Writer) { fmt.Fprintf(w, "%s: version %d\n", wr.Key, wr.Version) })
	}
	put := &cobra.Command{Use: "put KEY VALUE|-", Short: "Write a key", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		value, err := a.value(args[1])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		wr, err := c.Put(cmd.Context(), keyspace, args[0], value)
		if err != nil {
			return err
		}
		return written(wr)
	}}
	get := &cobra.Command{Use: "get KEY", Short: "Read a key", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		value, v, err := c.Get(cmd.Context(), keyspace, args[0])
		if err != nil {
			return err
		}
		return a.print(map[string]any{"key": args[0], "value": string(value), "version": v}, func(w io.Writer) { fmt.Fprintf(w, "%s\n", value) })
	}}
	del := &cobra.Command{Use: "del KEY", Short: "Delete a key", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		wr, err := c.Delete(cmd.Context(), keyspace, args[0])
		if err != nil {
			return err
		}
		return written(wr)
	}}
	cas := &cobra.Command{Use: "cas KEY VALUE|- --version N", Short: "Write a key if it has a version; 0: if it does not exist", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		value, err := a.value(args[1])
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		wr, err := c.CompareAndSet(cmd.Context(), keyspace, args[0], value, version)
		if err != nil {
			return err
		}
		return written(wr)
	}}
	cas.Flags().Uint64Var(&version, "version", 0, "the version that the key has to have")
	_ = cas.MarkFlagRequired("version") // it exists: two lines above
	cmd := group("kv", "Read and write keys, linearizably", put, get, del, cas)
	cmd.PersistentFlags().StringVar(&keyspace, "keyspace", "default", "keyspace")
	return cmd
}

// value is an argument, or the standard input for "-".
func (a *app) value(arg string) ([]byte, error) {
	if arg != "-" {
		return []byte(arg), nil
	}
	data, err := io.ReadAll(a.in)
	if err != nil {
		return nil, fmt.Errorf("read the value: %w", err)
	}
	return data, nil
}

func (a *app) webhookCmd() *cobra.Command {
	var types []string
	list := &cobra.Command{Use: "list", Short: "List webhook receivers", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		all, err := c.Endpoints(cmd.Context())
		if err != nil {
			return err
		}
		return a.print(map[string]any{"endpoints": all}, func(w io.Writer) {
			table(w, "ENDPOINT\tURL\tDELIVERED\tFAILED\tPARKED\tSTATE", func(row func(...any)) {
				for _, e := range all {
					state := "enabled"
					if e.Disabled {
						state = "disabled: " + e.DisabledReason
					}
					row(e.ID, e.URL, e.Delivered, e.Failed, e.Parked, state)
				}
			})
		})
	}}
	create := &cobra.Command{Use: "create URL", Short: "Register a receiver; its secret is shown once", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		e, err := c.CreateEndpoint(cmd.Context(), args[0], types)
		if err != nil {
			return err
		}
		return a.print(e, func(w io.Writer) {
			fmt.Fprintf(w, "%s\nsecret %s\nKeep the secret now: it is not shown again.\n", e.ID, e.Secret)
		})
	}}
	create.Flags().StringSliceVar(&types, "types", nil, "event types; all unless stated")
	del := &cobra.Command{Use: "delete ENDPOINT", Short: "Remove a receiver", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return c.DeleteEndpoint(cmd.Context(), args[0])
	}}
	return group("webhook", "Manage webhook receivers", list, create, del)
}

func (a *app) eventsCmd() *cobra.Command {
	var after string
	var types []string
	cmd := &cobra.Command{Use: "events", Short: "Follow what happens, until Ctrl-C", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		out := json.NewEncoder(a.out)
		for f, err := range c.Follow(cmd.Context(), client.FollowOptions{After: after, Types: types}) {
			switch {
			case cmd.Context().Err() != nil:
				return nil // that is how it ends
			case err != nil:
				return err
			case a.json:
				err = out.Encode(f)
			default:
				e := f.Event
				_, err = fmt.Fprintf(a.out, "%s  %-26s %s  %s\n", e.Timestamp.Format("15:04:05.000"), e.Type, e.OrderID, shorten(string(e.Data), 80))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}}
	cmd.Flags().StringVar(&after, "after", "", "a position to go on from, or start for all; from now on unless given")
	cmd.Flags().StringSliceVar(&types, "types", nil, "event types separated by commas, or a prefix such as payment.*")
	return cmd
}

func (a *app) nodeCmd() *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List the nodes as the answering one sees them", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		nodes, err := c.Nodes(cmd.Context())
		if err != nil {
			return err
		}
		return a.print(map[string]any{"nodes": nodes}, func(w io.Writer) {
			table(w, "NODE\tREST\tPEERS\tHEALTH", func(row func(...any)) {
				for _, n := range nodes {
					health := "healthy"
					if !n.Healthy {
						health = "unhealthy: " + n.Reason
					}
					row(n.ID, n.REST, n.Peers, health)
				}
			})
		})
	}}
	return group("node", "Show the nodes", list)
}

func (a *app) shardCmd() *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List the shards with a replica at the answering node", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		s, err := c.Shards(cmd.Context())
		if err != nil {
			return err
		}
		return a.print(s, func(w io.Writer) {
			table(w, "SHARD\tLEADER\tTERM\tAPPLIED\tCOMMIT\tREPLICAS", func(row func(...any)) {
				for _, sh := range s.Shards {
					var replicas []string
					for _, r := range sh.Replicas {
						replicas = append(replicas, fmt.Sprintf("%d:%s", r.Node, r.State))
					}
					row(sh.ID, sh.Leader, sh.Term, sh.Applied, sh.Commit, strings.Join(replicas, " "))
				}
			})
		})
	}}
	return group("shard", "Show the shards", list)
}
