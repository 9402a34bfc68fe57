package cli

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"hanse/client"
)

func (a *app) stockCmd() *cobra.Command {
	var location, reason string
	flags := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&location, "location", "", "main unless stated")
		c.Flags().StringVar(&reason, "reason", "", "why")
		return a.keyed(c)
	}
	change := func(use, short string, do func(c *client.Client, cmd *cobra.Command, sku string, ch client.StockChange) (*client.Location, error)) *cobra.Command {
		return flags(&cobra.Command{Use: use + " SKU QTY", Short: short, Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseInt(args[1], 10, 64)
			if err != nil {
				return usage("quantity %q: want a whole number", args[1])
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			l, err := do(c, cmd, args[0], client.StockChange{Quantity: n, Location: location, Reason: reason})
			if err != nil {
				return err
			}
			return a.print(l, func(w io.Writer) {
				fmt.Fprintf(w, "%s at %s: %d on hand, %d available\n", l.SKU, l.Location, l.OnHand, l.Available)
			})
		}})
	}
	get := &cobra.Command{Use: "get SKU", Short: "Show the stock of a SKU", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		s, err := c.Stock(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.print(s, func(w io.Writer) {
			table(w, "LOCATION\tON HAND\tRESERVED\tALLOCATED\tUNAVAILABLE\tAVAILABLE\tTRACKED", func(row func(...any)) {
				for _, l := range s.Locations {
					row(l.Location, l.OnHand, l.Reserved, l.Allocated, l.Unavailable, l.Available, l.Tracked)
				}
			})
		})
	}}
	var off bool
	track := &cobra.Command{Use: "track SKU", Short: "Count the stock of a SKU, or with --off do not", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		l, err := c.SetTracking(cmd.Context(), args[0], !off, location)
		if err != nil {
			return err
		}
		return a.print(l, func(w io.Writer) { fmt.Fprintf(w, "%s at %s: tracked %v\n", l.SKU, l.Location, l.Tracked) })
	}}
	track.Flags().BoolVar(&off, "off", false, "do not count it")
	track.Flags().StringVar(&location, "location", "", "main unless stated")
	return group("stock", "Receive, adjust and show stock",
		change("receive", "Book units in", func(c *client.Client, cmd *cobra.Command, sku string, ch client.StockChange) (*client.Location, error) {
			return c.Receive(cmd.Context(), a.key, sku, ch)
		}),
		change("adjust", "Correct the count, up or down", func(c *client.Client, cmd *cobra.Command, sku string, ch client.StockChange) (*client.Location, error) {
			return c.Adjust(cmd.Context(), a.key, sku, ch)
		}),
		get, track)
}
