from vggfeat.ui.page_runs import PageRuns


def test_stop_and_leave_reach_the_runs_of_one_page():
    runs = PageRuns()
    assert not runs.stop("a")
    with runs.begin("a") as mine, runs.begin("b") as other:
        assert runs.running == 2
        assert runs.stop("a")
        assert (mine.stopped, mine.abandoned, mine.ending) == (True, False, True)
        assert not other.ending
        runs.abandon("b")
        assert (other.stopped, other.abandoned, other.ending) == (False, True, True)
    assert runs.running == 0
    assert not runs.stop("b")


def test_a_page_may_have_two_runs():
    runs = PageRuns()
    with runs.begin("a") as first:
        with runs.begin("a"):
            pass
        assert runs.stop("a")
        assert first.stopped
