package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"hanse/client"
	"hanse/internal/money"
)

func (a *app) paymentCmd() *cobra.Command {
	show := func(p *client.Payment) error {
		return a.print(p, func(w io.Writer) {
			fmt.Fprintf(w, "%s of order %s: authorized %s, captured %s, refunded %s, voided %s\n", p.ID, p.OrderID,
				money.Text(p.Authorized, p.Currency), money.Text(p.Captured, p.Currency), money.Text(p.Refunded, p.Currency), money.Text(p.Voided, p.Currency))
			table(w, "OPERATION\tKIND\tSTATE\tAMOUNT\tATTEMPTS\tCODE", func(row func(...any)) {
				for _, op := range p.Operations {
					state := op.State
					if op.Stuck {
						state += " (stuck)"
					}
					row(op.ID, op.Kind, state, money.Amount(op.Amount, p.Currency), op.Attempts, op.Code)
				}
			})
		})
	}
	get := &cobra.Command{Use: "get PAYMENT", Short: "Show a payment", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := c.Payment(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return show(p)
	}}
	return group("payment", "Show payments, and settle what the provider cannot tell", get, a.paymentListCmd(), a.paymentRetryCmd(show), a.paymentResolveCmd(show))
}

func (a *app) paymentListCmd() *cobra.Command {
	var stuck bool
	var limit int
	var cursor string
	cmd := &cobra.Command{Use: "list", Short: "List payments", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if limit < 1 {
			return usage("--limit %d: want at least 1", limit)
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		payments, next, err := c.PaymentPage(cmd.Context(), stuck, cursor, limit)
		if err != nil {
			return err
		}
		return a.print(page("payments", payments, next), func(w io.Writer) {
			if len(payments) == 0 {
				fmt.Fprintln(w, "There are none.")
				return
			}
			table(w, "PAYMENT\tORDER\tAUTHORIZED\tCAPTURED\tREFUNDED\tVOIDED", func(row func(...any)) {
				for _, p := range payments {
					row(p.ID, p.OrderID, money.Text(p.Authorized, p.Currency), money.Text(p.Captured, p.Currency), money.Text(p.Refunded, p.Currency), money.Text(p.Voided, p.Currency))
				}
			})
			if next != "" {
				fmt.Fprintf(w, "More: --cursor '%s'\n", next)
			}
		})
	}}
	cmd.Flags().BoolVar(&stuck, "stuck", false, "only those that need a person")
	cmd.Flags().IntVar(&limit, "limit", 20, "rows")
	cmd.Flags().StringVar(&cursor, "cursor", "", "where the page before ended")
	return cmd
}

func (a *app) paymentRetryCmd(show func(*client.Payment) error) *cobra.Command {
	var operator string
	cmd := &cobra.Command{Use: "retry PAYMENT OPERATION", Short: "Ask the provider again now", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := c.RetryOperation(cmd.Context(), args[0], args[1], operator)
		if err != nil {
			return err
		}
		return show(p)
	}}
	cmd.Flags().StringVar(&operator, "operator", os.Getenv("USER"), "who decides")
	return cmd
}

func (a *app) paymentResolveCmd(show func(*client.Payment) error) *cobra.Command {
	var outcome, evidence, operator string
	var yes bool
	cmd := &cobra.Command{
		Use: "resolve PAYMENT OPERATION --outcome succeeded|failed --evidence TEXT", Short: "Settle an operation whose outcome the provider cannot tell",
		Long: "Settle an operation whose outcome the provider cannot tell, from what its dashboard or support says. Without --yes nothing is\ndecided: the command only says what would be recorded, and exits with 1.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if outcome != "succeeded" && outcome != "failed" || evidence == "" {
				return usage("say --outcome succeeded (the money has moved) or failed (it has not), and --evidence, how that is known")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			p, err := c.Payment(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			for _, op := range p.Operations {
				if op.ID != args[1] {
					continue
				}
				if !yes {
					if op.State != "unknown" && !op.Stuck {
						return fmt.Errorf("operation %s of payment %s is %s: only what is unknown or stuck can be resolved", op.ID, p.ID, op.State)
					}
					return a.dryRun("--yes to decide", map[string]any{"payment_id": p.ID, "operation": op, "outcome": outcome},
						"%s of %s (%s, %d attempts) would be recorded as %s.", op.Kind, money.Text(op.Amount, p.Currency), op.State, op.Attempts, outcome)
				}
				if p, err = c.ResolveOperation(cmd.Context(), args[0], args[1], outcome == "succeeded", evidence, operator); err != nil {
					return err
				}
				return show(p)
			}
			return fmt.Errorf("payment %s has no operation %s: hanse payment get %s lists them", p.ID, args[1], p.ID)
		},
	}
	f := cmd.Flags()
	f.StringVar(&outcome, "outcome", "", "succeeded or failed")
	f.StringVar(&evidence, "evidence", "", "how it is known")
	f.StringVar(&operator, "operator", os.Getenv("USER"), "who decides")
	f.BoolVar(&yes, "yes", false, "decide")
	return cmd
}

// dryRun says what a decision would do that was not confirmed. It is errNotDone: a script that forgot to confirm is not to go on as if
// it had been done.
func (a *app) dryRun(with string, v map[string]any, format string, args ...any) error {
	v["dry_run"] = true
	err := a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "Dry run. %s Repeat with %s.\n", fmt.Sprintf(format, args...), with)
	})
	return cmp.Or(err, errNotDone)
}
