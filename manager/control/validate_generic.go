package control

import (
	"fmt"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/generic"
)

// maxGenericCount is how many of one kind a service may reserve.
const maxGenericCount = 1_000_000

// generic checks what is reserved of generic resources.
func (p *problems) generic(at string, resources []*api.GenericResource) {
	if len(resources) > generic.MaxKinds {
		p.add(at, "%d kinds of generic resources are too many: at most %d are allowed", len(resources), generic.MaxKinds)
		return
	}
	seen := map[string]bool{}
	for i, r := range resources {
		field, kind := fmt.Sprintf("%s[%d]", at, i), r.GetKind()
		switch {
		case !generic.ValidKind(kind):
			p.add(field+".kind", "invalid kind of generic resource %q: use letters, digits and _ . -, at most 64", clip(kind))
		case seen[strings.ToUpper(kind)]:
			p.add(field+".kind", "duplicate kind of generic resource: %s", kind)
		case len(r.GetIds()) > 0:
			p.add(field+".ids", "a service reserves a number of %s: which ones a task gets is decided with its node", kind)
		case r.GetCount() < 1 || r.GetCount() > maxGenericCount:
			p.add(field+".count", "invalid number of %s: %d: write 1 to %d", kind, r.GetCount(), maxGenericCount)
		}
		seen[strings.ToUpper(kind)] = true
	}
}
