package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// envPrefix begins the names of settings in the environment: HANSE_NODE_ID is --node-id.
const envPrefix = "HANSE_"

// settings fills the flags of cmd that were not given, from the environment, and what that does not say from a YAML
// file (none for ""). Every flag is a setting of the same name. It reports all that is wrong, not only the first.
func settings(cmd *cobra.Command, file string, environ []string) error {
	own := make(map[string]*pflag.Flag)
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" {
			own[f.Name] = f
		}
	})
	k := koanf.New("/") // no setting has a slash in its name, so that nothing is nested by its name
	var problems []error
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return usage("--config: %w", err)
		}
		if err := k.Load(rawbytes.Provider(data), yaml.Parser()); err != nil {
			return usage("--config %s: %w", file, err)
		}
		for _, name := range slices.Sorted(maps.Keys(k.Raw())) {
			if own[name] == nil {
				problems = append(problems, fmt.Errorf("%s: there is no setting %q; hanse %s --help lists them", file, name, cmd.Name()))
			}
		}
	}
	if err := k.Load(env.Provider("/", env.Opt{
		Prefix: envPrefix, EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			setting := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, envPrefix)), "_", "-")
			if own[setting] == nil {
				return "", nil // another command's, or another program's
			}
			return setting, value
		},
	}), nil); err != nil {
		return fmt.Errorf("read the environment: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if own[name].Changed || !k.Exists(name) {
			continue
		}
		value := k.Get(name)
		if err := cmd.Flags().Set(name, settingText(value)); err != nil {
			problems = append(problems, fmt.Errorf("setting %s = %v: %w", name, value, err))
		}
	}
	if len(problems) > 0 {
		return &usageError{errors.Join(problems...)}
	}
	return nil
}

// settingText writes a value of a file as a flag takes it: lists separated by commas, maps as name=value.
func settingText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = settingText(e)
		}
		return strings.Join(parts, ",")
	case map[string]any:
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, name+"="+settingText(v[name]))
		}
		return strings.Join(parts, ",")
	}
	return fmt.Sprint(v)
}
