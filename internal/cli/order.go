package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"hanse/client"
	"hanse/internal/money"
)

func (a *app) orderCmd() *cobra.Command {
	var version uint64
	var limit int
	var cursor, reason, tracking, disposition string
	var items []string
	var noRefund bool

	place := a.keyed(&cobra.Command{Use: "place FILE|-", Short: "Place an order from a JSON file, or from the standard input", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.readOrder(args[0])
			if err != nil {
				return err
			}
			return a.order(func(c *client.Client) (*client.Order, error) { return c.PlaceOrder(cmd.Context(), a.key, p) })
		}})
	get := &cobra.Command{Use: "get ORDER", Short: "Show an order", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return a.order(func(c *client.Client) (*client.Order, error) { return c.Order(cmd.Context(), args[0], version) })
	}}
	get.Flags().Uint64Var(&version, "version", 0, "the order after so many events")
	list := &cobra.Command{Use: "list CUSTOMER", Short: "List a customer's orders, newest first", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		orders, next, err := c.Orders(cmd.Context(), args[0], cursor, limit)
		if err != nil {
			return err
		}
		return a.print(page("orders", orders, next), func(w io.Writer) {
			if len(orders) == 0 {
				fmt.Fprintf(w, "%s has no orders.\n", args[0])
				return
			}
			table(w, "ORDER\tSTATE\tTOTAL\tLINES\tPLACED", func(row func(...any)) {
				for _, o := range orders {
					row(o.ID, o.State, money.Text(o.Total, o.Currency), len(o.Lines), o.CreatedAt.Format("2006-01-02 15:04:05"))
				}
			})
			if next != "" {
				fmt.Fprintf(w, "More: hanse order list %s --cursor '%s'\n", args[0], next)
			}
		})
	}}
	list.Flags().IntVar(&limit, "limit", 20, "rows, 1 to 1000")
	list.Flags().StringVar(&cursor, "cursor", "", "where the page before ended")
	cancel := a.keyed(&cobra.Command{Use: "cancel ORDER", Short: "Cancel an order, or what is still open of it", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return a.order(func(c *client.Client) (*client.Order, error) { return c.Cancel(cmd.Context(), a.key, args[0], reason) })
	}})
	cancel.Flags().StringVar(&reason, "reason", "", "why")
	fulfill := a.keyed(&cobra.Command{Use: "fulfill ORDER", Short: "Ship items, or all that is open, and charge for them", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		chosen, err := parseItems(items)
		if err != nil {
			return err
		}
		return a.order(func(c *client.Client) (*client.Order, error) {
			return c.Fulfill(cmd.Context(), a.key, args[0], chosen, tracking)
		})
	}})
	fulfill.Flags().StringSliceVar(&items, "item", nil, "LINE:QUANTITY, repeatable")
	fulfill.Flags().StringVar(&tracking, "tracking", "", "the carrier's number")
	ret := a.keyed(&cobra.Command{Use: "return ORDER --item LINE:QUANTITY", Short: "Take items back and refund them", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		chosen, err := parseItems(items)
		if err != nil {
			return err
		}
		if len(chosen) == 0 {
			return usage("say what came back: --item LINE:QUANTITY")
		}
		r := &client.ReturnItems{Items: chosen, Disposition: disposition, Reason: reason}
		if noRefund {
			r.Refund = new(bool)
		}
		return a.order(func(c *client.Client) (*client.Order, error) { return c.Return(cmd.Context(), a.key, args[0], r) })
	}})
	ret.Flags().StringSliceVar(&items, "item", nil, "LINE:QUANTITY, repeatable")
	ret.Flags().StringVar(&disposition, "disposition", "sellable", "sellable, damaged or lost")
	ret.Flags().StringVar(&reason, "reason", "", "why")
	ret.Flags().BoolVar(&noRefund, "no-refund", false, "keep the money")
	refund := a.keyed(&cobra.Command{Use: "refund ORDER AMOUNT", Short: "Give money back without goods, in minor units", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		minor, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return usage("amount %q: want whole minor units", args[1])
		}
		return a.order(func(c *client.Client) (*client.Order, error) {
			return c.Refund(cmd.Context(), a.key, args[0], minor, reason)
		})
	}})
	refund.Flags().StringVar(&reason, "reason", "", "why")
	events := &cobra.Command{Use: "events ORDER", Short: "List an order's events", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		all, err := c.Events(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.print(map[string]any{"events": all}, func(w io.Writer) {
			table(w, "VERSION\tTIME\tTYPE\tDATA", func(row func(...any)) {
				for _, e := range all {
					row(e.Version, e.Timestamp.Format("15:04:05.000"), e.Type, shorten(string(e.Data), 100))
				}
			})
		})
	}}
	explain := &cobra.Command{Use: "explain ORDER", Short: "Tell an order's history in words", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		s, err := c.Explain(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.print(s, func(w io.Writer) {
			fmt.Fprintln(w, s.Summary)
			for _, t := range s.Story {
				fmt.Fprintf(w, "  %s  %s (%s)\n", t.Timestamp.Format("15:04:05.000"), t.Text, t.Cause)
			}
		})
	}}
	return group("order", "Place and change orders", place, get, list, cancel, fulfill, ret, refund, events, explain)
}

// shorten cuts a text to n bytes or a little less, between characters.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// readOrder reads an order to place; fields that the API does not know are refused here already.
func (a *app) readOrder(name string) (*client.PlaceOrder, error) {
	r := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usage("read the order: %v", err)
		}
		defer f.Close()
		r = f
	}
	p := new(client.PlaceOrder)
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, usage("read the order: %v", err)
	}
	if d.More() {
		return nil, usage("read the order: something follows it; place one order at a time")
	}
	return p, nil
}

func parseItems(texts []string) ([]client.Item, error) {
	var items []client.Item
	for _, t := range texts {
		line, quantity, ok := strings.Cut(t, ":")
		n, err := strconv.ParseUint(line, 10, 32)
		q, err2 := strconv.ParseInt(quantity, 10, 64)
		if !ok || err != nil || err2 != nil {
			return nil, usage("--item %q: want LINE:QUANTITY", t)
		}
		items = append(items, client.Item{Line: uint32(n), Quantity: q})
	}
	return items, nil
}

// order does something that gives an order, and shows it.
func (a *app) order(do func(*client.Client) (*client.Order, error)) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	o, err := do(c)
	if err != nil {
		var refused *client.Error
		if errors.As(err, &refused) && refused.Order != nil && !a.json {
			showOrder(a.err, refused.Order)
		}
		return err
	}
	return a.print(o, func(w io.Writer) { showOrder(w, o) })
}

func showOrder(w io.Writer, o *client.Order) {
	fmt.Fprintf(w, "%s  %s  %s  revision %d\n", o.ID, o.State, money.Text(o.Total, o.Currency), o.Revision)
	if o.Reason != "" {
		fmt.Fprintln(w, strings.TrimRight("reason: "+o.Reason+" "+o.ReasonDetail, " "))
	}
	fmt.Fprintf(w, "customer %s, payment %s, fulfillment %s, returns %s\n", o.CustomerID, o.PaymentStatus, o.FulfillmentStatus, o.ReturnStatus)
	shown := o.Lines[:min(len(o.Lines), 20)]
	table(w, "LINE\tSKU\tQUANTITY\tPRICE\tTOTAL\tFULFILLED\tRETURNED\tCANCELED", func(row func(...any)) {
		for _, l := range shown {
			row(l.Line, l.SKU, l.Quantity, money.Amount(l.UnitPrice, o.Currency), money.Amount(l.Total, o.Currency), l.Fulfilled, l.Returned, l.Canceled)
		}
	})
	if n := len(o.Lines) - len(shown); n > 0 {
		fmt.Fprintf(w, "… and %d more lines (--json shows all)\n", n)
	}
	for _, s := range o.Stuck {
		fmt.Fprintf(w, "stuck: step %d, %s: %s; see hanse saga show %s\n", s.Seq, s.Step, s.Cause, o.ID)
	}
	if o.State == "placing" || o.State == "awaiting_payment" {
		fmt.Fprintf(w, "It is still on its way; see hanse order get %s\n", o.ID)
	}
}
