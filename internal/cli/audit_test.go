package cli

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"hanse/client"
)

// The first node of a development cluster may just be dead, and then the client does not use its address: the provider is found all the same.
func TestTheProviderIsFoundWhenTheFirstNodeIsDead(t *testing.T) {
	ledger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/ledger" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer ledger.Close()
	_, text, err := net.SplitHostPort(ledger.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	second := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"nodes":[{"id":1,"rest":"127.0.0.1:%d"},{"id":2,"rest":"127.0.0.1:1"},{"id":3,"rest":"db.example:7400"}]}`, port-90)
	}))
	defer second.Close()
	c, err := client.New(client.Config{Addrs: []string{second.Listener.Addr().String()}, Pinned: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := devProvider(t.Context(), c); got != ledger.URL {
		t.Errorf("devProvider = %q, want %s", got, ledger.URL)
	}
	ledger.Close()
	if got := devProvider(t.Context(), c); got != "" {
		t.Errorf("without a provider devProvider = %q, want none", got)
	}
}
