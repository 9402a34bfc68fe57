package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hanse/client"
	"hanse/internal/audit"
	"hanse/internal/psp"
)

func splitAddrs(s string) []string { return strings.Split(s, ",") }

func (a *app) auditCmd() *cobra.Command {
	var provider string
	cmd := &cobra.Command{
		Use: "audit", Short: "Recompute stock, money and orders from their events and compare", Args: cobra.NoArgs,
		Long: "Recompute stock, money and orders from the events of all shards, and compare them with the stored state and with the\nprovider's ledger. Names each difference, and exits with 1 when there is one; with 3 when the cluster or the given provider does not\nanswer. Says whether the ledger was compared. What the provider has otherwise because an operator has resolved an operation is shown\ntoo, and is no difference.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if err := c.Discover(cmd.Context()); err != nil {
				return err
			}
			report, err := a.runAudit(cmd.Context(), c, provider)
			if err != nil {
				return err
			}
			if err := a.print(report, func(w io.Writer) { showAudit(w, report) }); err != nil {
				return err
			}
			if len(report.Differences) > 0 {
				return errDifferent
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&provider, "psp", "", "the provider's URL, to compare with its ledger too; a development cluster's is found by itself; none to leave it out")
	return cmd
}

func showAudit(w io.Writer, r *audit.Report) {
	fmt.Fprintf(w, "%d orders (%d under way, %d of them wait for a person), %d SKUs, %d payments\n", r.Orders, r.Open, r.Stuck, r.SKUs, r.Payments)
	if r.Moving > 0 {
		fmt.Fprintf(w, "The stock of %d SKUs changed all the time and could not be compared; audit again when there is less to do.\n", r.Moving)
	}
	for _, d := range r.Resolved {
		fmt.Fprintf(w, "%s was resolved by an operator: the books have %s; the provider %s\n", d.ID, d.Expected, d.Found)
	}
	uncompared := ""
	if !r.LedgerCompared {
		uncompared = "; the provider's ledger was not compared"
	}
	if len(r.Differences) == 0 {
		fmt.Fprintf(w, "No difference%s.\n", uncompared)
		return
	}
	for _, d := range r.Differences {
		fmt.Fprintln(w, d)
	}
	fmt.Fprintf(w, "%s%s\n", plural(len(r.Differences), "difference"), uncompared)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// runAudit audits a cluster, with the provider's ledger if there is one: the given URL, or that of a development cluster.
func (a *app) runAudit(ctx context.Context, c *client.Client, provider string) (*audit.Report, error) {
	var ledger audit.Ledger
	switch provider {
	case "none":
	case "":
		if url := devProvider(ctx, c); url != "" {
			ledger = readLedger(url)
		} else {
			fmt.Fprintln(a.err, "no provider's ledger to compare with: give its URL with --psp")
		}
	default:
		if u, err := url.Parse(provider); err != nil || u.Host == "" {
			return nil, usage("--psp %q: want the provider's URL, or none", provider)
		}
		ledger = readLedger(strings.TrimSuffix(provider, "/"))
	}
	return audit.Run(ctx, audit.Folding(c), ledger, audit.DefaultConfig())
}

// devProvider returns the URL of a development cluster's provider: 90 ports above the first node's, which need not answer just now.
func devProvider(ctx context.Context, c *client.Client) string {
	addrs := c.Addrs()
	if nodes, err := c.Nodes(ctx); err == nil {
		for _, n := range nodes {
			addrs = append(addrs, n.REST)
		}
	}
	for _, addr := range addrs {
		host, text, err := net.SplitHostPort(addr)
		port, err2 := strconv.Atoi(text)
		if err != nil || err2 != nil || host != "127.0.0.1" {
			continue
		}
		if url := fmt.Sprintf("http://127.0.0.1:%d", port+90); hasLedger(ctx, url) {
			return url
		}
	}
	return ""
}

// hasLedger says whether a simulated provider answers there. A busy machine may take its time; where nobody listens one hears at once.
func hasLedger(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/ledger?limit=1", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// ledgerError says that the provider's ledger could not be read: nothing is known of differences.
type ledgerError struct{ err error }

func (e *ledgerError) Error() string { return e.err.Error() }
func (e *ledgerError) Unwrap() error { return e.err }

// readLedger reads the ledger of the simulated provider, page by page. An error is a [ledgerError].
func readLedger(url string) audit.Ledger {
	return func(ctx context.Context, after uint64, fn func(audit.Charge)) error {
		if err := readPages(ctx, url, after, fn); err != nil {
			return &ledgerError{err}
		}
		return nil
	}
}

func readPages(ctx context.Context, url string, after uint64, fn func(audit.Charge)) error {
	for more := true; more; {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v1/ledger?after=%d&limit=5000", url, after), nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		var page psp.LedgerPage
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		switch {
		case resp.StatusCode != http.StatusOK:
			return fmt.Errorf("%s answered %s", url, resp.Status)
		case err != nil:
			return fmt.Errorf("read the answer of %s: %w", url, err)
		}
		for _, op := range page.Operations {
			after = op.Seq
			fn(audit.Charge{
				Seq: op.Seq, Key: op.Key, PaymentID: op.PaymentID, Kind: op.Kind, Amount: op.Amount, Currency: op.Currency, Declined: op.Declined,
			})
		}
		more = page.HasMore && len(page.Operations) > 0
	}
	return nil
}
