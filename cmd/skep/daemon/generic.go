package daemon

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/generic"
)

// idPattern leaves out what separates ids, and what a variable of the environment can't have.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_.:/@+-]{1,128}$`)

// parseGeneric reads --node-generic-resource: KIND=NUMBER, or KIND=ID for each one that has an id; several may be separated by commas.
func parseGeneric(flags []string) ([]*api.GenericResource, error) {
	var out []*api.GenericResource
	var errs []error
	for _, text := range flags {
		for pair := range strings.SplitSeq(text, ",") {
			var err error
			if out, err = addGeneric(out, strings.TrimSpace(pair)); err != nil {
				errs = append(errs, fmt.Errorf("--node-generic-resource %q: %w", pair, err))
			}
		}
	}
	return out, errors.Join(errs...)
}

func addGeneric(present []*api.GenericResource, pair string) ([]*api.GenericResource, error) {
	kind, value, _ := strings.Cut(pair, "=")
	if !generic.ValidKind(kind) || !idPattern.MatchString(value) {
		return present, errors.New("want KIND=ID for each, as in gpu=GPU-1, or KIND=NUMBER, of letters, digits and _ . - (in ids also : / @ +)")
	}
	at := slices.IndexFunc(present, func(r *api.GenericResource) bool { return strings.EqualFold(r.GetKind(), kind) })
	count, err := strconv.ParseInt(value, 10, 64)
	switch numbered := err == nil; {
	case at < 0 && len(present) == generic.MaxKinds:
		return present, fmt.Errorf("too many kinds: at most %d", generic.MaxKinds)
	case numbered && (count < 1 || at >= 0):
		return present, fmt.Errorf("a number of %s is given once, from 1 on, and not beside ids", kind)
	case numbered:
		return append(present, &api.GenericResource{Kind: kind, Count: count}), nil
	case at < 0:
		return append(present, &api.GenericResource{Kind: kind, Ids: []string{value}}), nil
	case present[at].GetKind() != kind:
		return present, fmt.Errorf("it is written %s before: tasks could not tell one from the other", present[at].GetKind())
	case present[at].GetCount() > 0 || slices.Contains(present[at].GetIds(), value):
		return present, fmt.Errorf("%s is there already", kind)
	case len(present[at].GetIds()) == generic.MaxIDs:
		return present, fmt.Errorf("too many ids of %s: at most %d", kind, generic.MaxIDs)
	}
	present[at].Ids = append(present[at].Ids, value)
	return present, nil
}
