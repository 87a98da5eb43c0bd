package flagvalue

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Filter collects conditions key=value. Values of one key are alternatives, keys must all hold.
type Filter map[string][]string

// Set adds one condition.
func (f *Filter) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	key = strings.ToLower(strings.TrimSpace(key))
	if !ok || key == "" {
		return fmt.Errorf("bad format of filter %q: write name=value", text)
	}
	if *f == nil {
		*f = Filter{}
	}
	(*f)[key] = append((*f)[key], strings.TrimSpace(value))
	return nil
}

// String is empty: the default is no condition.
func (f *Filter) String() string { return "" }

// Type is Docker's word.
func (f *Filter) Type() string { return "filter" }

// Check returns an error for a key that is not among the allowed ones. One that has only some words for values is allowed as
// KEY=WORD|WORD; words are compared whatever their case, and a dash is as good as a space.
func (f Filter) Check(allowed ...string) error {
	words := map[string]string{}
	var keys []string
	for _, a := range allowed {
		key, values, _ := strings.Cut(a, "=")
		words[key] = values
		keys = append(keys, key)
	}
	for _, key := range slices.Sorted(maps.Keys(f)) {
		values, ok := words[key]
		if !ok {
			return fmt.Errorf("invalid filter %q: filter by %s", key, strings.Join(keys, ", "))
		}
		if values == "" {
			continue
		}
		for _, value := range f[key] {
			if !slices.Contains(strings.Split(values, "|"), strings.ReplaceAll(strings.ToLower(value), " ", "-")) {
				return fmt.Errorf("invalid filter %q: the %s is one of %s", key+"="+value, key, strings.ReplaceAll(values, "|", ", "))
			}
		}
	}
	return nil
}

// Match reports whether key has no condition, or one of its values satisfies holds.
func (f Filter) Match(key string, holds func(value string) bool) bool {
	values, ok := f[key]
	return !ok || slices.ContainsFunc(values, holds)
}

// Prefix is [Filter.Match] for one of several names that must start with the value.
func (f Filter) Prefix(key string, names ...string) bool {
	return f.Match(key, func(value string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, value) })
	})
}

// Equal is [Filter.Match] for a value that must be one of a few words, whatever their case.
func (f Filter) Equal(key, word string) bool {
	return f.Match(key, func(value string) bool { return strings.EqualFold(value, word) })
}

// Labels is true when every condition of key, written KEY or KEY=VALUE, holds for the labels.
func (f Filter) Labels(key string, labels map[string]string) bool {
	for _, condition := range f[key] {
		name, want, valued := strings.Cut(condition, "=")
		got, ok := labels[name]
		if !ok || (valued && got != want) {
			return false
		}
	}
	return true
}
