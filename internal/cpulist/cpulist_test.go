package cpulist_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/internal/cpulist"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]cpulist.List{
		"0":                 {{0, 0}},
		"0-3,6":             {{0, 3}, {6, 6}},
		"6,2-3,0-1":         {{0, 3}, {6, 6}},
		"1-5,2,4-7":         {{1, 7}},
		"0-99999,99999,9-9": {{0, 99999}},
	} {
		got, err := cpulist.Parse(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", text, err, diff)
		}
	}
	for _, text := range []string{"", ",", "0,", "a", "-1", "1-", "-", "3-1", "0-1-2", "+1", " 1", "100000", "0-100000", "0-8:2/4"} {
		if got, err := cpulist.Parse(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestHas(t *testing.T) {
	for _, tc := range []struct {
		have, want string
		has        bool
	}{
		{"0", "0", true},
		{"0-7", "0-3,5", true},
		{"0-1,2-7", "1-3", true},
		{"0-2,4", "0,4", true},
		{"0-1", "2", false},
		{"0-1", "0-2", false},
		{"0-2,4", "0,3", false},
		{"0-2,4", "2-4", false},
	} {
		have, err := cpulist.Parse(tc.have)
		if err != nil {
			t.Fatal(err)
		}
		want, err := cpulist.Parse(tc.want)
		if err != nil {
			t.Fatal(err)
		}
		if got := have.Has(want); got != tc.has {
			t.Errorf("%s has %s: %v", tc.have, tc.want, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("0-3,6")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := cpulist.Parse(text)
		if err != nil {
			return
		}
		if !list.Has(list) {
			t.Errorf("%q has not itself: %v", text, list)
		}
		for i, r := range list {
			if r.First > r.Last || i > 0 && list[i-1].Last+1 >= r.First {
				t.Errorf("%q: %v", text, list)
			}
		}
	})
}
