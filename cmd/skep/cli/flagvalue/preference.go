package flagvalue

import (
	"fmt"
	"strings"

	"github.com/skep-io/skep/api"
)

// Preferences collects placement preferences: spread=LABEL.
type Preferences []*api.PlacementPreference

// spreadPrefix begins a preference; there is no other kind.
const spreadPrefix = "spread="

// Set adds one preference. Whether what it names is a label, the managers know.
func (p *Preferences) Set(text string) error {
	label, ok := strings.CutPrefix(text, spreadPrefix)
	if !ok || label == "" {
		return fmt.Errorf("invalid placement preference: %q: write spread= and a label, such as spread=node.labels.datacenter", text)
	}
	*p = append(*p, &api.PlacementPreference{Spread: label})
	return nil
}

// Names returns preferences as they are typed.
func (p Preferences) Names() []string {
	names := make([]string, 0, len(p))
	for _, preference := range p {
		names = append(names, spreadPrefix+preference.GetSpread())
	}
	return names
}

// String is empty: the default is no preference.
func (p *Preferences) String() string { return strings.Join(p.Names(), ", ") }

// Type is Docker's word.
func (p *Preferences) Type() string { return "pref" }
