package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"hanse/client"
	"hanse/internal/money"
)

func (a *app) sagaCmd() *cobra.Command {
	show := &cobra.Command{Use: "show ORDER", Short: "Show an order's saga", Args: cobra.ExactArgs(1),
		RunE: a.withSaga(func(ctx context.Context, c *client.Client, args []string) (*client.Saga, error) {
			return c.Saga(ctx, args[0])
		})}
	var operator string
	retry := &cobra.Command{Use: "retry ORDER STEP", Short: "Send a stuck step again now", Args: cobra.ExactArgs(2),
		RunE: a.withSaga(func(ctx context.Context, c *client.Client, args []string) (*client.Saga, error) {
			seq, err := parseStep(args[1])
			if err != nil {
				return nil, err
			}
			return c.RetryStep(ctx, args[0], seq, operator)
		})}
	retry.Flags().StringVar(&operator, "operator", os.Getenv("USER"), "who decides")
	return group("saga", "Look after orders that are on their way", a.sagaListCmd(), show, retry, a.sagaResolveCmd())
}

// withSaga runs what gives a saga, and shows it.
func (a *app) withSaga(do func(context.Context, *client.Client, []string) (*client.Saga, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		s, err := do(cmd.Context(), c, args)
		if err != nil {
			return err
		}
		return a.showSaga(s)
	}
}

func (a *app) showSaga(s *client.Saga) error {
	return a.print(s, func(w io.Writer) {
		fmt.Fprintf(w, "%s  %s  %s  payment %s\n", s.OrderID, s.State, money.Text(s.Total, s.Currency), s.PaymentStep)
		for _, l := range s.Legs {
			fmt.Fprintf(w, "  stock in %s: %s\n", l.Shard, l.State)
		}
		for _, st := range s.Stuck {
			fmt.Fprintf(w, "  stuck: step %d, %s, since %s, at least %d attempts, next %s\n    %s\n    at risk: %s and %d units\n", st.Seq, st.Step,
				timeOfDay(st.Since), st.Attempts, nextTry(st.NextTry), st.Cause, money.Text(st.Amount, s.Currency), st.Units)
		}
		if len(s.Stuck) > 0 {
			fmt.Fprintf(w, "Settle it: hanse saga retry %s STEP, or hanse saga resolve %s STEP\n", s.OrderID, s.OrderID)
		}
	})
}

// nextTry writes when a stuck step is tried next, as far as the order knows: that was written down when it became stuck, and others follow.
func nextTry(t time.Time) string {
	if t.Before(time.Now()) {
		return "–"
	}
	return timeOfDay(t)
}

// timeOfDay writes a time of day, or a dash for none.
func timeOfDay(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.Format("15:04:05")
}

func (a *app) sagaListCmd() *cobra.Command {
	var stuck bool
	var limit int
	var cursor string
	cmd := &cobra.Command{Use: "list", Short: "List orders that are on their way", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		sagas, next, err := c.Sagas(cmd.Context(), stuck, cursor, limit)
		if err != nil {
			return err
		}
		return a.print(page("sagas", sagas, next), func(w io.Writer) {
			if len(sagas) == 0 {
				fmt.Fprintf(w, "Nothing is %s.\n", map[bool]string{true: "stuck", false: "on its way"}[stuck])
				return
			}
			table(w, "ORDER\tSTATE\tSTEP\tSINCE\tATTEMPTS\tNEXT TRY\tMONEY AT RISK\tUNITS AT RISK\tCAUSE", func(row func(...any)) {
				for _, s := range sagas {
					if len(s.Stuck) == 0 {
						row(s.OrderID, s.State, "–", timeOfDay(s.UpdatedAt), "–", "–", "–", "–", "–")
					}
					for _, st := range s.Stuck {
						row(s.OrderID, s.State, fmt.Sprintf("%d %s", st.Seq, st.Step), timeOfDay(st.Since),
							fmt.Sprintf("%d+", st.Attempts), nextTry(st.NextTry), money.Text(st.Amount, s.Currency), st.Units, shorten(st.Cause, 60))
					}
				}
			})
			if next != "" {
				fmt.Fprintf(w, "More: --cursor '%s'\n", next)
			}
		})
	}}
	cmd.Flags().BoolVar(&stuck, "stuck", false, "only those with a stuck step")
	cmd.Flags().IntVar(&limit, "limit", 50, "rows, 1 to 1000")
	cmd.Flags().StringVar(&cursor, "cursor", "", "where the page before ended")
	return cmd
}

func (a *app) sagaResolveCmd() *cobra.Command {
	var yes bool
	var operator, evidence, decision string
	cmd := &cobra.Command{
		Use: "resolve ORDER STEP --decision done|skip --evidence TEXT", Short: "Settle a stuck step by hand",
		Long: "Settle a stuck step by hand: done, it has happened outside of the system; skip, it is given up. Money that is done is in the books\nof the order and of its payment, and the provider is not asked for it. Without --yes nothing is decided: the command only says\nwhat would be recorded, and exits with 1.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			seq, err := parseStep(args[1])
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
					return a.dryRun("--yes to decide", map[string]any{"order_id": s.OrderID, "step": st, "decision": decision},
						"Step %d (%s) of order %s would be recorded as %s, with %s and %d units at risk.",
						seq, st.Step, s.OrderID, map[string]string{"done": "done", "skip": "given up"}[decision], money.Text(st.Amount, s.Currency), st.Units)
				}
				resolved, err := c.ResolveStep(cmd.Context(), args[0], seq, decision, evidence, operator)
				if err != nil {
					return err
				}
				return a.showSaga(resolved)
			}
			return fmt.Errorf("order %s has no stuck step %d: hanse saga show %s lists them", s.OrderID, seq, s.OrderID)
		},
	}
	f := cmd.Flags()
	f.StringVar(&decision, "decision", "", "done or skip")
	f.StringVar(&evidence, "evidence", "", "how it is known")
	f.StringVar(&operator, "operator", os.Getenv("USER"), "who decides")
	f.BoolVar(&yes, "yes", false, "decide")
	return cmd
}

func parseStep(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, usage("step %q: want its number, as hanse saga list shows it", s)
	}
	return n, nil
}
