package control

import (
	"fmt"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/constraint"
)

// maxPreferences bounds the depth of the groups that the scheduler makes of the nodes.
const maxPreferences = 8

// placement checks where tasks may run.
func (p *problems) placement(at string, placement *api.Placement) {
	if _, err := constraint.Parse(placement.GetConstraints()); err != nil {
		p.add(at+".constraints", "%v", err)
	}
	p.value(at+".strategy", placement.GetStrategy())
	if n := len(placement.GetPreferences()); n > maxPreferences {
		p.add(at+".preferences", "%d preferences are too many: at most %d are allowed", n, maxPreferences)
		return
	}
	for i, preference := range placement.GetPreferences() {
		if _, err := constraint.ParseLabel(preference.GetSpread()); err != nil {
			p.add(fmt.Sprintf("%s.preferences[%d].spread", at, i), "%v", err)
		}
	}
}
