// Package crash kills the real command, again and again, while it replays the bundled month, and holds every
// book against every other when it has gone on to the end. `make crash KILLS=n SEED=s` repeats a run's plan: which
// broker, which point, after how many events. What else happens at that moment is the machine's affair.
package crash
