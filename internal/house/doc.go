// Package house holds the tests that keep the house rules: who may import whom, that every package and RPC is
// documented, that nothing sleeps in a test, that no secret prints itself. It has no code of its own.
//
// A rule that no test keeps decays; a rule that fails here says what to write instead.
package house
