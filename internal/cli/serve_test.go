package cli

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"hanse/internal/node"
)

// configured returns the configuration that a command line of hanse serve makes, with a payment provider.
func configured(t *testing.T, args ...string) (node.Config, error) {
	t.Helper()
	cfg := node.DefaultConfig()
	var f serveFlags
	a := &app{}
	cmd := a.serveCmdOf(&cfg, &f)
	if err := cmd.ParseFlags(append([]string{"--psp", "instant"}, args...)); err != nil {
		t.Fatal(err)
	}
	return cfg, f.complete(cmd, &cfg)
}

func TestServeTakesWhatANodeThatJoinsNeeds(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("hjt_from_file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := configured(t, "--data", "/d", "--join", "shop1:7400,shop2:7400", "--join-token-file", token, "--replace", "3", "--name", "shop4",
		"--zone", "b", "--roles", "order,payment", "--host", "10.0.0.4", "--http-port", "7500")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(cfg.Join, []string{"shop1:7400", "shop2:7400"}) || cfg.JoinToken != "hjt_from_file" || cfg.Replace != 3 || cfg.ID != 0 || cfg.ClusterID != "" ||
		cfg.Name != "shop4" || cfg.Zone != "b" || !reflect.DeepEqual(cfg.Roles, []string{"order", "payment"}) {
		t.Errorf("configured as %+v", cfg)
	}
	if cfg.HTTPAddr != "10.0.0.4:7500" || cfg.PeerAddr != "10.0.0.4:7502" || cfg.GossipAddr != "10.0.0.4:7503" {
		t.Errorf("it listens on %s, %s and %s", cfg.HTTPAddr, cfg.PeerAddr, cfg.GossipAddr)
	}
	t.Setenv("HANSE_JOIN_TOKEN", "hjt_from_environment")
	if cfg, err = configured(t, "--data", "/d", "--join", "shop1:7400"); err != nil || cfg.JoinToken != "hjt_from_environment" {
		t.Errorf("with HANSE_JOIN_TOKEN: %v, token %q", err, cfg.JoinToken)
	}
}

func TestServeAdvertisesWhereOthersReachTheNode(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Skipf("this machine has no name: %v", err)
	}
	for _, test := range []struct {
		name string
		args []string
		want [3]string // advertised REST, peers, gossip
	}{
		{"where it listens", nil, [3]string{"127.0.0.1:7400", "127.0.0.1:7402", "127.0.0.1:7403"}},
		{"as told", []string{"--host", "10.0.0.4", "--advertise", "shop4.example"}, [3]string{"shop4.example:7400", "shop4.example:7402", "shop4.example:7403"}},
		{"an IPv6 address", []string{"--host", "::", "--advertise", "2001:db8::4"}, [3]string{"[2001:db8::4]:7400", "[2001:db8::4]:7402", "[2001:db8::4]:7403"}},
		{"by its name", []string{"--host", "0.0.0.0"}, [3]string{net.JoinHostPort(name, "7400"), net.JoinHostPort(name, "7402"), net.JoinHostPort(name, "7403")}},
		{"as the list says", []string{"--host", "0.0.0.0", "--peers", "1=a:1/a:2"}, [3]string{"a:1", "a:2", "0.0.0.0:7403"}},
	} {
		cfg, err := configured(t, append([]string{"--data", "/d", "--bootstrap"}, test.args...)...)
		if http, peer, gossip := cfg.Advertised(); err != nil || [3]string{http, peer, gossip} != test.want {
			t.Errorf("%s: %s, %s, %s (%v), want %v", test.name, http, peer, gossip, err, test.want)
		}
	}
}

func TestServeRefusesWhatCannotWork(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "--bootstrap for the first node of a cluster, with --join"},
		{[]string{"--data", "/d", "--join", "a:1"}, "join without a token"},
		{[]string{"--data", "/d", "--join", "a:1", "--join-token", "hjt_1", "--bootstrap"}, "join and bootstrap"},
		{[]string{"--data", "/d", "--join", "a:1", "--join-token", "hjt_1", "--node-id", "4"}, "the cluster gives"},
		{[]string{"--data", "/d", "--join", "a", "--join-token", "hjt_1"}, `join address "a"`},
		{[]string{"--data", "/d", "--join", "a:1", "--join-token", "hjt_1", "--join-token-file", "f"}, "want one of them"},
		{[]string{"--data", "/d", "--join", "a:1", "--join-token-file", "/nowhere/token"}, "/nowhere/token"},
		{[]string{"--data", "/d", "--replace", "3"}, "only a node that joins"},
		{[]string{"--data", "/d", "--roles", "cooking"}, `"cooking"`},
	} {
		_, err := configured(t, test.args...)
		if _, ok := errors.AsType[*usageError](err); !ok || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hjt_1") {
			t.Errorf("serve %v: %v, want %q", test.args, err, test.want)
		}
	}
}

// A number has no unit, so its name has one.
func TestJSONLogsNameTheUnitOfDurations(t *testing.T) {
	var out strings.Builder
	log, err := (&app{err: &out}).logger("json", "info")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("request slow", "took", 2008642*time.Microsecond)
	if got := out.String(); !strings.Contains(got, `"took_ms":2008.642`) || strings.Contains(got, `"took":`) {
		t.Errorf("the log has %s, want took_ms 2008.642", got)
	}
}
