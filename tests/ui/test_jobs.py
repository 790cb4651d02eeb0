from vggfeat.ui.jobs import Jobs


def test_stop_and_leave_reach_the_jobs_of_one_page():
    jobs = Jobs()
    assert not jobs.stop("a")
    with jobs.begin("a") as mine, jobs.begin("b") as other:
        assert jobs.running == 2
        assert jobs.stop("a")
        assert (mine.stopped, mine.gone, mine.over) == (True, False, True)
        assert not other.over
        jobs.leave("b")
        assert (other.stopped, other.gone, other.over) == (False, True, True)
    assert jobs.running == 0
    assert not jobs.stop("b")


def test_a_page_may_have_two_jobs():
    jobs = Jobs()
    with jobs.begin("a") as first:
        with jobs.begin("a"):
            pass
        assert jobs.stop("a")
        assert first.stopped
