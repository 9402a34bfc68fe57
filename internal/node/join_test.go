package node

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"hanse/api/metapb"
	"hanse/internal/reject"
	"hanse/internal/shard"
	"hanse/internal/store/memstore"
)

// A cluster that answers one thing after the other, and the last one for ever.
func answers(t *testing.T, all ...func(w http.ResponseWriter)) (address string) {
	next := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		all[min(next, len(all)-1)](w)
		next++
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func refuses(status int, code string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"code": code, "detail": "because of " + code})
	}
}

func admits(w http.ResponseWriter) {
	v := &metapb.View{Cluster: &metapb.Cluster{Id: "hanse", Replicas: 3}}
	for s, n := range shard.DefaultLayout() {
		v.Cluster.Layout = append(v.Cluster.Layout, &metapb.ServiceShards{Service: uint32(s), Shards: uint32(n)})
	}
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"node": 7, "cluster": "hanse", "view": encode(v), "psp": "https://payments.example"})
}

func TestJoinAsksOnWhereThatHelps(t *testing.T) {
	for _, c := range []struct {
		name    string
		cluster []func(http.ResponseWriter)
		want    string // part of the error, empty for none
	}{
		{"admitted", []func(http.ResponseWriter){admits}, ""},
		{"not founded yet", []func(http.ResponseWriter){refuses(409, reject.NotFounded), admits}, ""},
		{"no majority for a moment", []func(http.ResponseWriter){refuses(503, reject.Unavailable), admits}, ""},
		{"too many requests", []func(http.ResponseWriter){refuses(429, reject.Overloaded), admits}, ""},
		{"wrong token", []func(http.ResponseWriter){refuses(403, reject.JoinTokenWrong), admits}, "does not admit this node: join_token_wrong: because of"},
		{"no majority", []func(http.ResponseWriter){refuses(503, reject.Unavailable)}, "nobody could answer within 1.2s: because of unavailable; is the cluster up"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Join, cfg.JoinToken, cfg.JoinPatience = []string{answers(t, c.cluster...)}, "t", 1200*time.Millisecond
			j := &joiner{cfg: cfg, engine: memstore.NewDisk().Open(), log: slog.New(slog.DiscardHandler), now: time.Now}
			id, err := j.join(t.Context())
			switch {
			case c.want == "" && (err != nil || id.Node != 7 || !id.Joined || id.PSP != "https://payments.example"):
				t.Errorf("join() = %+v, %v, want node 7 with the provider of who admits it", id, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("join() = %+v, %v, want an error with %q", id, err, c.want)
			}
		})
	}
}
