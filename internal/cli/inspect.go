package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"hanse/client"
)

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
	var raw bool
	get := &cobra.Command{Use: "get KEY", Short: "Read a key", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		value, v, err := c.Get(cmd.Context(), keyspace, args[0])
		if err != nil {
			return err
		}
		if raw {
			_, err := a.out.Write(value)
			return err
		}
		shown := map[string]any{"key": args[0], "version": v, "value": string(value)}
		if !utf8.Valid(value) {
			delete(shown, "value")
			shown["value_base64"] = value
		}
		return a.print(shown, func(w io.Writer) { fmt.Fprintf(w, "%s\n", value) })
	}}
	get.Flags().BoolVar(&raw, "raw", false, "write the value's bytes and nothing else")
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
		if !cmd.Flags().Changed("version") {
			return usage("say which version the key has to have: --version N, 0 for none")
		}
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
			table(w, "ENDPOINT\tURL\tDELIVERED\tFAILED\tPARKED\tSTATE\tLAST FAILURE", func(row func(...any)) {
				for _, e := range all {
					state := "enabled"
					if e.Disabled {
						state = "disabled: " + e.DisabledReason
					}
					failure := "–"
					if e.LastError != "" {
						failure = timeOfDay(e.LastErrorAt) + " " + e.LastError
					}
					row(e.ID, e.URL, e.Delivered, e.Failed, e.Parked, state, failure)
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
		if err := c.DeleteEndpoint(cmd.Context(), args[0]); err != nil {
			return err
		}
		return a.print(map[string]string{"deleted": args[0]}, func(w io.Writer) { fmt.Fprintln(w, args[0], "is gone") })
	}}
	enable := &cobra.Command{Use: "enable ENDPOINT", Short: "Deliver again to a receiver that was disabled", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		e, err := c.EnableEndpoint(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.print(e, func(w io.Writer) { fmt.Fprintf(w, "%s: deliveries to %s go on\n", e.ID, e.URL) })
	}}
	return group("webhook", "Manage webhook receivers", list, create, enable, del)
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
