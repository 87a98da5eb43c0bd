package compose

import (
	"reflect"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// TestFates_OfEveryKey keeps I1: each key that the library can read is taken, ignored or refused, and no other one is listed. What is
// refused or ignored is so with all below it.
func TestFates_OfEveryKey(t *testing.T) {
	listed, reached := fates(), map[string]bool{}
	var walk func(of reflect.Type, path string)
	walk = func(of reflect.Type, path string) {
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(of.Elem(), path)
		case reflect.Struct:
			for i := range of.NumField() {
				field := of.Field(i)
				key, embedded := keyOf(field)
				if embedded {
					walk(field.Type, path)
					continue
				}
				if key == "" {
					continue
				}
				at := join(path, key)
				reached[at] = true
				f, ok := listed[at]
				switch {
				case !ok:
					t.Errorf("%s is neither taken nor ignored nor refused: say which in fate.go, and why", at)
				case !f.ignored && f.refused == "":
					walk(field.Type, at)
				}
			}
		}
	}
	walk(reflect.TypeFor[types.Project](), "")
	for path := range listed {
		if !reached[path] {
			t.Errorf("fate.go lists %s, which the library does not read", path)
		}
	}
	if len(reached) < 150 {
		t.Errorf("only %d keys were found", len(reached))
	}
}

// TestSift_StopsAtAKeyThatIsNotListed shows that the walk over a file is as deep as that over the types.
func TestSift_StopsAtAKeyThatIsNotListed(t *testing.T) {
	replicas := 2
	project := &types.Project{Services: types.Services{"web": {Deploy: &types.DeployConfig{Replicas: &replicas}}}}
	known := fates()
	delete(known, "services.deploy.replicas")
	s := sifter{fates: known, ignored: map[string]bool{}}
	s.fields(reflect.ValueOf(project).Elem(), "", "")
	if len(s.refused) != 1 || s.refused[0] != "services.web.deploy.replicas: this version does not know it: leave it out" {
		t.Errorf("got %q", s.refused)
	}
}
