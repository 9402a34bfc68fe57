package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// settingsCommand is a command with one setting of each kind.
func settingsCommand(out map[string]*string) *cobra.Command {
	cmd := &cobra.Command{Use: "serve", RunE: func(*cobra.Command, []string) error { return nil }}
	for _, name := range []string{"data", "http-port", "peers", "from-default"} {
		out[name] = cmd.Flags().String(name, "default", "")
	}
	cmd.Flags().StringToInt("shards", nil, "")
	cmd.Flags().Bool("bootstrap", false, "")
	cmd.Flags().String("config", "", "")
	return cmd
}

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFlagsWinOverEnvironmentOverFileOverDefault(t *testing.T) {
	got := make(map[string]*string)
	cmd := settingsCommand(got)
	root := &cobra.Command{Use: "hanse"}
	root.PersistentFlags().String("addr", "here", "")
	root.AddCommand(cmd)
	file := write(t, "data: file\nhttp-port: 7500\npeers:\n  - 1=a:1/a:2\n  - 2=b:1/b:2\nshards: {order: 6, inventory: 3}\nbootstrap: true\n")
	if err := cmd.ParseFlags([]string{"--data", "flag"}); err != nil {
		t.Fatal(err)
	}
	environ := []string{"HANSE_DATA=environment", "HANSE_HTTP_PORT=7600", "HANSE_ADDR=elsewhere", "HANSE_OTHER=1", "DATA=no", "HANSE_CONFIG=none"}
	if err := settings(cmd, file, environ); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"data": "flag", "http-port": "7600", "peers": "1=a:1/a:2,2=b:1/b:2", "from-default": "default"} {
		if *got[name] != want {
			t.Errorf("%s = %q, want %q", name, *got[name], want)
		}
	}
	shards, err := cmd.Flags().GetStringToInt("shards")
	if err != nil || len(shards) != 2 || shards["order"] != 6 || shards["inventory"] != 3 {
		t.Errorf("shards = %v, %v", shards, err)
	}
	if on, err := cmd.Flags().GetBool("bootstrap"); err != nil || !on {
		t.Errorf("bootstrap = %v, %v", on, err)
	}
	if addr, err := cmd.Flags().GetString("addr"); err == nil && addr != "here" {
		t.Errorf("addr = %q: a flag of all commands is no setting of this one", addr)
	}
}

func TestMistakesInSettingsAreAllNamed(t *testing.T) {
	for _, test := range []struct {
		name, file string
		environ    []string
		want       []string
	}{
		{"unknown names", "data: x\ncolour: red\nport: y\n", nil, []string{`"colour"`, `"port"`, "serve --help"}},
		{"wrong kinds", "bootstrap: perhaps\nshards: {order: many}\n", nil, []string{"bootstrap", "perhaps", "shards"}},
		{"the environment", "data: x\n", []string{"HANSE_BOOTSTRAP=perhaps"}, []string{"bootstrap", "perhaps"}},
		{"a file twice", "data: x\ndata: y\n", nil, []string{"already defined"}},
		{"no YAML", "data = x\n", nil, []string{"node.yaml"}},
		{"a file that names a file", "config: other.yaml\n", nil, []string{`"config"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := settings(settingsCommand(make(map[string]*string)), write(t, test.file), test.environ)
			if _, ok := errors.AsType[*usageError](err); !ok {
				t.Fatalf("got %v, want a mistake of usage", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
	err := settings(settingsCommand(make(map[string]*string)), filepath.Join(t.TempDir(), "none.yaml"), nil)
	if _, ok := errors.AsType[*usageError](err); !ok || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestServeSaysWhatIsWrong(t *testing.T) {
	t.Setenv("HANSE_DATA", "")
	dir := t.TempDir()
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "--data DIR"},
		{[]string{"--data", dir, "--peers", "1:a"}, "id=http-address/peer-address"},
		{[]string{"--data", dir, "--shards", "orders=3"}, `no service "orders"`},
		{[]string{"--data", dir, "--psp", "instant", "--log-level", "loud"}, "want debug, info, warn or error"},
		{[]string{"--data", dir, "--psp", "instant", "--log-format", "xml"}, "want text or json"},
		{[]string{"--data", dir, "--bootstrap", "--id", "0", "--psp", "nowhere", "--replicas", "9"}, "node ID 0"},
		{[]string{"--data", dir, "--config", filepath.Join(dir, "none.yaml")}, "none.yaml"},
		{[]string{"--data", dir, "--psp", "instant", "--http-port", "70000"}, "want 1 to 65532"},
		{[]string{"--data", dir, "extra"}, "unknown command"},
	} {
		var out, errOut strings.Builder
		code := Run(t.Context(), append([]string{"serve"}, test.args...), nil, &out, &errOut)
		if code != exitUsage || !strings.Contains(errOut.String(), test.want) {
			t.Errorf("serve %v: exit %d, %q, want %d and %q", test.args, code, errOut.String(), exitUsage, test.want)
		}
	}
}

func TestANodeWithoutBootstrapNeedsData(t *testing.T) {
	var out, errOut strings.Builder
	dir := filepath.Join(t.TempDir(), "empty")
	code := Run(t.Context(), []string{"serve", "--data", dir, "--psp", "instant", "--http", "127.0.0.1:0", "--peer", "127.0.0.1:0", "--gossip", "127.0.0.1:0"}, nil, &out, &errOut)
	if want := "is empty: start with --bootstrap to found a cluster there, with --join"; code != exitRefused || !strings.Contains(errOut.String(), want) {
		t.Errorf("exit %d: %s, want %q", code, errOut.String(), want)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the refused start has made the directory (%v)", err)
	}
}
